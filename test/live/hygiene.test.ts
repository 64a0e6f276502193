import { setTimeout as sleep } from 'node:timers/promises'
import { describe, test } from 'vitest'
import type { Lease, SessionInit } from '../../src/index.js'
import { startServer } from '../../src/testing/server.js'
import {
  DRIVERS,
  failure,
  holdfastError,
  MARIADB,
  openPool,
  PAIRS,
  scene,
  sharedServer,
  soon,
  until,
  type Scene,
} from './scene.js'
import { stranger } from './support.js'

const TABLE = 'CREATE TABLE {db}.t (id INT PRIMARY KEY AUTO_INCREMENT, v INT)'

/** What a user may see of a session's state. Counters and what is the session's by nature are left out. */
const INCIDENTAL =
  /^(pseudo_thread_id|timestamp|rand_seed|last_insert_id|identity|insert_id|error_count|warning_count|gtid_|last_gtid|statement_id|proxy_user|external_user|hostname|rbr_exec_mode|in_transaction|log_slow|.*_gtid$|original_server|server_id|session_track)/i

async function stateOf(lease: Lease): Promise<Record<string, string>> {
  const { rows } = await lease.query<{ Variable_name: string; Value: string }>('SHOW SESSION VARIABLES')
  const state = Object.fromEntries(rows.map((row) => [row.Variable_name, row.Value]))
  const { rows: more } = await lease.query(
    'SELECT DATABASE() AS db, CURRENT_ROLE() AS role, @mine AS mine, @other AS other',
  )
  for (const name of Object.keys(state)) if (INCIDENTAL.test(name)) delete state[name]
  return { ...state, ...more[0] }
}

/** Each leaves something behind that the next borrower could notice. */
const SOME = ['BEGIN and a write', 'SET without SESSION', '@vars by SET', 'SET NAMES', 'sql_mode', 'isolation']
const TRACES: Record<string, (lease: Lease, scene: Scene) => Promise<unknown>> = {
  'BEGIN and a write': async (lease) => {
    await lease.query('BEGIN')
    await lease.query('INSERT INTO t (v) VALUES (1)')
  },
  'START TRANSACTION WITH CONSISTENT SNAPSHOT': (lease) => lease.query('START TRANSACTION WITH CONSISTENT SNAPSHOT'),
  '/* comment */ BEGIN': (lease) => lease.query('/* no verb at first */ -- nor here\n BEGIN'),
  'SET SESSION': (lease) => lease.query('SET SESSION net_write_timeout = 77, SESSION sort_buffer_size = 1048576'),
  'SET without SESSION': (lease) => lease.query("SET time_zone = '+05:00', max_sort_length = 99"),
  'SET autocommit = 0': (lease) => lease.query('SET autocommit = 0'),
  'SET @@autocommit = 0': (lease) => lease.query('SET @@autocommit = 0'),
  '@vars by SET': (lease) => lease.query("SET @mine = 1, @other = 'x'"),
  '@vars by SELECT': (lease) => lease.query('SELECT @mine := 2'),
  '@vars by INTO': (lease) => lease.query('SELECT 3 INTO @mine'),
  'SET NAMES': (lease) => lease.query('SET NAMES latin1'),
  'SET CHARACTER SET': (lease) => lease.query('SET CHARACTER SET latin1'),
  USE: (lease, { account }) => lease.query(`USE \`${account.user}_other\``),
  'temporary table': (lease) => lease.query('CREATE TEMPORARY TABLE t (hidden INT)'),
  GET_LOCK: (lease, { account }) => lease.query('SELECT GET_LOCK(?, 0)', [account.user]),
  'LOCK TABLES': (lease) => lease.query('LOCK TABLES t WRITE'),
  PREPARE: (lease) => lease.query("PREPARE p FROM 'SELECT 1'"),
  sql_mode: (lease) => lease.query("SET SESSION sql_mode = 'ANSI_QUOTES'"),
  isolation: (lease) => lease.query('SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE'),
  'READ ONLY': (lease) => lease.query('SET SESSION TRANSACTION READ ONLY'),
  'next transaction only': (lease) => lease.query('SET TRANSACTION READ ONLY'),
  'by a prepared statement': (lease) => lease.query('SET @mine = ?', [9], { prepare: true }),
  'by CALL': async (lease, { root, account }) => {
    await root('DROP PROCEDURE IF EXISTS {db}.leave')
    await root(`CREATE DEFINER = ?@'%' PROCEDURE {db}.leave() SET @mine = 4`, [account.user])
    await lease.query('CALL `leave`()')
  },
  'by a stream': async (lease) => {
    for await (const _row of lease.stream('SELECT @mine := 5')) break
  },
  'an open HANDLER': (lease) => lease.query('HANDLER t OPEN'),
  'SET ROLE': async (lease, { account, root }) => {
    await root(`CREATE ROLE IF NOT EXISTS '${account.user}_role'`)
    await root(`GRANT SELECT ON {db}.* TO '${account.user}_role'`)
    await root(`GRANT '${account.user}_role' TO '${account.user}'@'%'`)
    await lease.query(`SET ROLE '${account.user}_role'`)
  },
  'FLUSH TABLES t WITH READ LOCK': (lease) => lease.query('FLUSH TABLES t WITH READ LOCK'),
  'temporary table by SELECT': (lease) => lease.query('CREATE TEMPORARY TABLE IF NOT EXISTS t AS SELECT 1 AS hidden'),
  'FOREIGN_KEY_CHECKS = 0': (lease) => lease.query('SET foreign_key_checks = 0, unique_checks = 0'),
}

/** What the traces need. Before the first session: it keeps the privileges that it began with. */
async function withOtherDatabase({ server, account }: Scene): Promise<void> {
  await server.query('GRANT RELOAD ON *.* TO ??', [account.user])
  await server.query('CREATE DATABASE ??', [`${account.user}_other`])
  await server.query('GRANT ALL ON ??.* TO ??', [`${account.user}_other`, account.user])
}

describe.each(PAIRS)('a session goes home clean, on $kind with $driver', { concurrent: true }, ({ kind, driver }) => {
  const INITS: Record<string, SessionInit | undefined> = {
    'no sessionInit': undefined,
    'sessionInit as texts': ["SET SESSION time_zone = '+02:00'", 'SET SESSION max_sort_length = 512', 'SET @other = 7'],
    'sessionInit as a function': async (session) => {
      await session.query("SET SESSION sql_mode = 'ANSI_QUOTES,NO_ZERO_DATE'")
      await session.query('SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED')
      await session.query('SET NAMES utf8mb4 COLLATE utf8mb4_bin')
    },
  }
  for (const [name, sessionInit] of Object.entries(INITS)) {
    test(`whatever was left behind, the next borrower finds a fresh session (${name})`, async ({ expect }) => {
      const options = { driver, max: 1, setup: TABLE, ...(sessionInit && { sessionInit }) }
      await scene(await sharedServer(kind), options, async (s) => {
        await withOtherDatabase(s)
        const fresh = await s.db.use((lease) => stateOf(lease))
        expect(Object.keys(fresh).length).toBeGreaterThan(200)
        const outsider = await stranger(s.account)
        for (const [trace, leave] of Object.entries(TRACES)) {
          if (sessionInit && !SOME.includes(trace)) continue
          await s.db.use((lease) => leave(lease, s))
          const next = await s.db.acquire()
          expect(await stateOf(next), trace).toEqual(fresh)
          expect((await next.query('SELECT COUNT(*) AS n FROM t')).rows, trace).toEqual([{ n: 0 }])
          expect(await failure(next.query('EXECUTE p')), trace).toMatchObject({ errno: 1243 })
          await next.query('INSERT INTO t (v) VALUES (2)') // not read only, not within a transaction of others
          const [rows] = await outsider.query('SELECT COUNT(*) AS n, GET_LOCK(?, 0) AS free FROM t', [s.account.user])
          expect(rows, trace).toEqual([{ n: 1, free: 1 }])
          await outsider.query('SELECT RELEASE_LOCK(?)', [s.account.user])
          await outsider.query('DELETE FROM t')
          next.release()
        }
        outsider.destroy()
      })
    })
  }

  test('what db.query() leaves behind does not reach the next borrower either', async ({ expect }) => {
    await scene(await sharedServer(kind), { driver, max: 1, setup: TABLE }, async (s) => {
      await withOtherDatabase(s)
      const fresh = await s.db.use((lease) => stateOf(lease))
      const statements = [
        'BEGIN',
        'SET autocommit = 0',
        'SET @mine = 1',
        'SELECT @mine := 1',
        'SET NAMES latin1',
        `USE \`${s.account.user}_other\``,
        'CREATE TEMPORARY TABLE t (hidden INT)',
        'LOCK TABLES t READ',
        `SELECT GET_LOCK('${s.account.user}', 0)`,
        "PREPARE p FROM 'SELECT 1'",
        'SET SESSION TRANSACTION READ ONLY',
      ]
      for (const sql of statements) {
        await s.db.query(sql)
        await s.db.query('INSERT INTO t (v) VALUES (1)')
        expect(await s.count('t'), sql).toBe(1)
        await s.root('DELETE FROM {db}.t')
        expect(await s.db.use((lease) => stateOf(lease)), sql).toEqual(fresh)
        expect(await failure(s.db.query('EXECUTE p')), sql).toMatchObject({ errno: 1243 })
      }
    })
  })

  test('a pool without a database: after USE the next borrower has none again', async ({ expect }) => {
    const server = await sharedServer(kind)
    const account = await server.createAccount()
    const url = new URL(account.url)
    url.pathname = '/'
    await using db = openPool(url.href, driver, { max: 1 })
    expect((await db.query('SELECT DATABASE() AS db')).rows).toEqual([{ db: null }])
    await db.use((lease) => lease.query(`USE \`${account.database}\``))
    expect((await db.query('SELECT DATABASE() AS db')).rows).toEqual([{ db: null }])
    await db.query(`USE \`${account.database}\``)
    expect((await db.query('SELECT DATABASE() AS db')).rows).toEqual([{ db: null }])
  })

  test('a server, or a sessionInit, without autocommit: nothing uncommitted is handed on', async ({ expect }) => {
    const options = { driver, max: 1, sessionInit: 'SET autocommit = 0', setup: TABLE }
    await scene(await sharedServer(kind), options, async (s) => {
      await s.db.use((lease) => lease.query('INSERT INTO t (v) VALUES (1)'))
      await s.db.use(async (lease) => {
        expect((await lease.query('SELECT @@autocommit AS a')).rows).toEqual([{ a: 0 }])
        expect((await lease.query('SELECT COUNT(*) AS n FROM t')).rows).toEqual([{ n: 0 }])
      })
      await s.db.query('INSERT INTO t (v) VALUES (2)')
      expect((await s.db.query('SELECT COUNT(*) AS n FROM t')).rows).toEqual([{ n: 0 }])
      await s.db.transaction((tx) => tx.query('INSERT INTO t (v) VALUES (3)'))
      expect(await s.count('t')).toBe(1)
      expect((await s.db.query('SELECT COUNT(*) AS n FROM t')).rows).toEqual([{ n: 1 }])
      // A snapshot of long ago is a trace as well.
      await s.root('INSERT INTO {db}.t (v) VALUES (4)')
      expect((await s.db.query('SELECT COUNT(*) AS n FROM t')).rows).toEqual([{ n: 2 }])
    })
  })

  test('prepared statements work after a reset, and do not pile up', async ({ expect }) => {
    const server = await sharedServer(kind)
    await scene(server, { driver, max: 1, setup: TABLE }, async ({ db }) => {
      const sql = 'SELECT ? + 1 AS n'
      for (let round = 0; round < 30; round++) {
        const { rows } = await db.query(sql, [round], { prepare: true })
        expect(Number(rows[0].n)).toBe(round + 1)
        await db.query('INSERT INTO t (v) VALUES (?)', [round], { prepare: true })
        await db.query(round % 2 ? 'SET @mine = 1' : 'SET NAMES latin1')
        await db.use(async (lease) => {
          expect(Number((await lease.query(sql, [7], { prepare: true })).rows[0].n)).toBe(8)
          await lease.query('SET @mine = ?', [1], { prepare: true })
        })
      }
      expect((await db.query('SELECT COUNT(*) AS n FROM t')).rows).toEqual([{ n: 30 }])
      expect(db.stats().total.opened).toBe(1)
    })
  })

  test('after a reset, text goes to and fro as before', async ({ expect }) => {
    await scene(await sharedServer(kind), { driver, max: 1 }, async ({ db }) => {
      const text = 'Zażółć 😀 “ß”'
      const read = async (): Promise<unknown> => {
        const inText = (await db.query('SELECT ? AS a, LENGTH(?) AS b, HEX(?) AS c', [text, text, text])).rows
        const values = [text, text, text]
        const inBinary = (await db.query('SELECT ? AS a, LENGTH(?) AS b, HEX(?) AS c', values, { prepare: true })).rows
        return [inText, inBinary].map((rows) => ({ ...rows[0], b: Number(rows[0].b) }))
      }
      const before = await read()
      expect(before).toEqual([0, 1].map(() => ({ a: text, b: 24, c: Buffer.from(text).toString('hex').toUpperCase() })))
      await db.query('SET NAMES latin1')
      expect(await read()).toEqual(before)
    })
  })
})

describe.each(PAIRS)('the reset, on $kind with $driver', ({ kind, driver }) => {
  test('costs nothing where nothing was left behind', async ({ expect }) => {
    await scene(await sharedServer(kind), { driver, max: 1, relay: {}, setup: TABLE }, async ({ db, relay }) => {
      let requests = 0
      relay.onRequest = () => void requests++
      await db.query('SELECT 1')
      await db.query('SELECT COUNT(*) FROM t WHERE v = ?', [1], { prepare: true })
      const before = requests
      const statements = [
        'SELECT 1',
        'SELECT * FROM t WHERE id = 3',
        'INSERT INTO t (v) VALUES (1)',
        'INSERT INTO t (v) SELECT v + 1 FROM t',
        'UPDATE t SET v = v + 1',
        'DELETE FROM t WHERE v = 0',
        'REPLACE INTO t (id, v) VALUES (1, 1)',
        'SELECT id, COUNT(*) FROM t GROUP BY id ORDER BY id LIMIT 3',
        'WITH x AS (SELECT 1 AS a) SELECT * FROM x',
        'SHOW TABLES',
        'EXPLAIN SELECT * FROM t',
        "SELECT CONCAT('a', UPPER('b'), NOW(), RAND(), UUID()), LAST_INSERT_ID(), ROW_COUNT()",
        'CREATE TABLE other (id INT)',
        'DROP TABLE other',
        '/* a comment */ SELECT 1',
        'SELECT * FROM t FOR UPDATE',
      ]
      for (const sql of statements) await db.query(sql)
      await db.query('SELECT COUNT(*) FROM t WHERE v = ?', [1], { prepare: true })
      await db.use(async (lease) => {
        for (const sql of statements) await lease.query(sql)
      })
      for await (const _row of db.stream('SELECT * FROM t'));
      await failure(db.query('SELECT * FROM nowhere'))
      await sleep(50)
      expect(requests - before).toBe(2 * statements.length + 3)

      requests = 0
      await db.transaction((tx) => tx.query('UPDATE t SET v = v + 1'))
      await failure(db.transaction(() => Promise.reject(new Error('mine'))))
      await sleep(50)
      expect(requests).toBe(5) // START, UPDATE, COMMIT; START, ROLLBACK
    })
  })
})

describe.each(DRIVERS.map((driver) => ({ driver })))('leases with $driver', { concurrent: true }, ({ driver }) => {
  test('a second release, and a late one when the slot is lent again, do nothing', async ({ expect }) => {
    await scene(await sharedServer(MARIADB), { driver, max: 1 }, async ({ db }) => {
      const old = await db.acquire()
      const next = db.acquire()
      old.release()
      const owner = await next
      old.release()
      old[Symbol.dispose]()
      await old[Symbol.asyncDispose]()
      expect(db.stats()).toMatchObject({ leased: 1, idle: 0 })
      const third = db.acquire()
      await sleep(30)
      expect(db.stats().waiting).toBe(1)
      await owner.query('SET @owner = 1')
      for (const call of [() => old.query('SELECT 1'), () => old.stream('SELECT 1').next()]) {
        await holdfastError(call(), 'LEASE_RELEASED')
      }
      expect(Number((await owner.query('SELECT @owner AS o')).rows[0].o)).toBe(1)
      owner.release()
      ;(await third).release()
      owner.release()
    })
  })

  test('`await using` and use() release however the block ends, and give what it gives', async ({ expect }) => {
    await scene(await sharedServer(MARIADB), { driver, max: 1 }, async ({ db }) => {
      const mine = new Error('mine')
      for (let round = 0; round < 3; round++) {
        const block = async (): Promise<void> => {
          await using lease = await db.acquire()
          await lease.query('SELECT 1')
          throw mine
        }
        expect(await failure(block())).toBe(mine)
        expect(await failure(db.use(() => Promise.reject(mine)))).toBe(mine)
        const thrownAtOnce = db.use(() => {
          throw mine
        })
        expect(await failure(thrownAtOnce)).toBe(mine)
        expect(await db.use(async (lease) => lease.threadId)).toBeGreaterThan(0)
      }
      expect(db.stats()).toMatchObject({ leased: 0, total: { opened: 1 } })
    })
  })

  test('released while a statement runs: it runs to its end, and nobody gets the session before', async ({
    expect,
  }) => {
    await scene(await sharedServer(MARIADB), { driver, max: 1, setup: TABLE }, async ({ db, count }) => {
      const lease = await db.acquire()
      const slow = lease.query('SELECT SLEEP(0.3) AS s')
      const write = lease.query('INSERT INTO t (v) VALUES (1)').then(
        () => 'done',
        (error) => error.code,
      )
      const after = db.query('SELECT COUNT(*) AS n FROM t')
      lease.release()
      await holdfastError(lease.query('SELECT 1'), 'LEASE_RELEASED')
      expect((await slow).rows).toEqual([{ s: 0 }])
      const told = await soon(write)
      expect(['done', 'LEASE_RELEASED']).toContain(told)
      const { rows } = await after
      expect(rows).toEqual([{ n: told === 'done' ? 1 : 0 }])
      expect(await count('t')).toBe(rows[0].n)
    })
  })

  test('an open transaction whose lease is released under its last statement is rolled back', async ({ expect }) => {
    await scene(await sharedServer(MARIADB), { driver, max: 1, setup: TABLE }, async ({ db, count }) => {
      const lease = await db.acquire()
      await lease.query('BEGIN')
      const last = lease.query('INSERT INTO t (v) SELECT 1 FROM (SELECT SLEEP(0.2)) s')
      lease.release()
      await last
      expect((await db.query('SELECT COUNT(*) AS n FROM t')).rows).toEqual([{ n: 0 }])
      expect(await count('t')).toBe(0)
    })
  })

  test('two owners never share a session', async ({ expect }) => {
    await scene(await sharedServer(MARIADB), { driver, max: 5, setup: TABLE }, async ({ db }) => {
      const inUse = new Set<number>()
      const owner = async (me: number): Promise<void> => {
        for (let turn = 0; turn < 5; turn++) {
          const lease = await db.acquire()
          if (inUse.has(lease.threadId)) expect.unreachable(`two owners of ${lease.threadId}`)
          inUse.add(lease.threadId)
          expect((await lease.query('SELECT @me AS me')).rows).toEqual([{ me: null }])
          await lease.query('SET @me = ?', [me])
          for (let n = 0; n < 10; n++) {
            const { rows } = await lease.query('SELECT @me AS me, CONNECTION_ID() AS id')
            expect({ me: Number(rows[0].me), id: Number(rows[0].id) }).toEqual({ me, id: lease.threadId })
          }
          inUse.delete(lease.threadId)
          lease.release()
          lease.release()
        }
      }
      const others = async (): Promise<void> => {
        for (let n = 0; n < 50; n++) {
          expect((await db.query('SELECT @me AS me')).rows).toEqual([{ me: null }])
          await db.query('SET @me = 99')
          await db.transaction(async (tx) => {
            expect((await tx.query('SELECT @me AS me')).rows).toEqual([{ me: null }])
          })
        }
      }
      await soon(Promise.all([...Array.from({ length: 20 }, (_, n) => owner(n)), others(), others()]), 20_000)
    })
  })

  test('a session whose reset fails, or hangs, is not handed on', async ({ expect }) => {
    await scene(await sharedServer(MARIADB), { driver, max: 2, relay: {} }, async ({ db, relay }) => {
      const lease = await db.acquire()
      await lease.query('SET @mine = 1')
      // COM_RESET_CONNECTION: a packet of one byte, 31
      const isReset = (chunk: Buffer): boolean => chunk.length === 5 && chunk[4] === 31
      for (const loss of ['reset-before', 'cut-after', 'stall-before'] as const) {
        let lost = false
        relay.onRequest = (chunk) => (!lost && isReset(chunk) ? ((lost = true), loss) : undefined)
        await db.query('SET @mine = 1')
        const seen = await soon(Promise.all([1, 2, 3].map(() => db.query('SELECT @mine AS mine'))), 3_000)
        expect(seen.flatMap(({ rows }) => rows)).toEqual([{ mine: null }, { mine: null }, { mine: null }])
        expect(lost).toBe(true)
      }
      relay.resume()
      lease.release()
      expect((await soon(db.query('SELECT @mine AS mine'))).rows).toEqual([{ mine: null }])
    })
  })

  test('a sessionInit that fails keeps nobody waiting for ever, and hands no half-made session on', async ({
    expect,
  }) => {
    let broken = false
    const sessionInit = async (session: { query(sql: string): Promise<unknown> }): Promise<void> => {
      await session.query('SET @ready = 1')
      if (broken) await session.query('SELEC 1')
    }
    const options = { driver, max: 2, acquireTimeoutMs: 1_000, sessionInit }
    await scene(await sharedServer(MARIADB), options, async ({ db }) => {
      expect(Number((await db.query('SELECT @ready AS r')).rows[0].r)).toBe(1)
      await until(() => db.stats().idle === 1)
      broken = true
      await db.query('SET @ready = 2') // its session is reset, and made ready in vain
      const told = await soon(failure(db.query('SELECT @ready AS r')), 3_000)
      expect(['CONNECT_FAILED', 'POOL_ACQUIRE_TIMEOUT']).toContain(told.code)
      broken = false
      await until(async () => Number((await db.query('SELECT @ready AS r')).rows[0].r) === 1, 5_000)
    })
  })

  test('sql modes that change how a text is read do not hide what it leaves behind', async ({ expect }) => {
    const init = { sessionInit: "SET SESSION sql_mode = 'NO_BACKSLASH_ESCAPES,ANSI_QUOTES'" }
    await scene(await sharedServer(MARIADB), { driver, max: 1, ...init }, async ({ db }) => {
      for (const sql of [
        String.raw`SELECT '\', @mine := 1, '\'`,
        String.raw`SELECT "a" FROM (SELECT 1 AS "a") AS x WHERE @mine := 1`,
        'SELECT 1 /*! , @mine := 1 */',
        'SELECT 1 /*M! , @mine := 1 */',
        'SELECT 1 --1 , @mine := 1',
        'SELECT `a`, @mine:=1 FROM (SELECT 1 AS `a`) x',
        "SET @`mine` = 1, @'other' = 1",
        'SELECT 1 INTO @mine',
        'WITH x AS (SELECT 1 AS a) SELECT a INTO @mine FROM x',
        '(SELECT 1 INTO @mine)',
        'SET STATEMENT max_statement_time = 10 FOR SELECT @mine := 1',
        "EXECUTE IMMEDIATE 'SET @mine = 1'",
        'BEGIN NOT ATOMIC SET @mine = 1; END',
        'ANALYZE SELECT @mine := 1',
        'SELECT 1 FROM DUAL WHERE 1 IN (@mine := 1)',
      ]) {
        await db.query(sql).catch(() => {})
        const { rows } = await db.query('SELECT @mine AS mine, @other AS other')
        expect(rows, sql).toEqual([{ mine: null, other: null }])
      }
    })
  })

  test('what a stored function leaves behind', async () => {
    const setup = [TABLE, 'CREATE FUNCTION {db}.locks() RETURNS INT READS SQL DATA RETURN GET_LOCK(DATABASE(), 0)']
    await scene(await sharedServer(MARIADB), { driver, max: 1, setup }, async ({ db, account }) => {
      await db.query('SELECT locks()')
      const outsider = await stranger(account)
      await until(async () => {
        const [rows] = await outsider.query('SELECT IS_FREE_LOCK(DATABASE()) AS free')
        return (rows as { free: number }[])[0]?.free === 1
      }, 1_000)
      await until(() => db.stats().idle === 1)
      outsider.destroy()
    })
  })
})

describe.each(PAIRS)('with its own settings, on $kind with $driver', { concurrent: true }, ({ kind, driver }) => {
  test('locks on the whole server end with the lease', async ({ expect }) => {
    await using server = await startServer(kind)
    await scene(server, { driver, max: 1, setup: TABLE }, async (s) => {
      await server.query('GRANT ALL ON *.* TO ??', [s.account.user])
      await server.query('SET SESSION lock_wait_timeout = 2')
      const own = server.flavour === 'mariadb' ? ['BACKUP LOCK t', 'BACKUP STAGE START'] : ['LOCK INSTANCE FOR BACKUP']
      for (const sql of ['FLUSH TABLES WITH READ LOCK', ...own]) {
        await s.db.use((lease) => lease.query(sql))
        await s.root('INSERT INTO {db}.t (v) VALUES (1)')
        await s.root('ALTER TABLE {db}.t COMMENT = ?', [sql])
        await s.db.query(sql)
        await s.root('ALTER TABLE {db}.t COMMENT = ?', [`${sql} again`])
      }
      expect(await s.count('t')).toBe(own.length + 1)
    })
  })

  test('a server with autocommit off, and other defaults than the driver asks for', async ({ expect }) => {
    const flags = [
      '--autocommit=0',
      '--character-set-server=latin1',
      '--collation-server=latin1_swedish_ci',
      '--sql-mode=',
    ]
    await using server = await startServer(kind, { flags })
    await scene(server, { driver, max: 1, setup: TABLE }, async (s) => {
      const fresh = await s.db.use((lease) => stateOf(lease))
      await s.db.use((lease) => lease.query("SET NAMES utf8mb4, sql_mode = 'ANSI', @mine = 1"))
      expect(await s.db.use((lease) => stateOf(lease))).toEqual(fresh)
      await s.db.use((lease) => lease.query('INSERT INTO t (v) VALUES (1)'))
      expect((await s.db.query('SELECT COUNT(*) AS n FROM t')).rows).toEqual([{ n: 0 }])
      await s.db.transaction((tx) => tx.query('INSERT INTO t (v) VALUES (1)'))
      await s.root('COMMIT')
      expect((await s.db.query('SELECT COUNT(*) AS n FROM t')).rows).toEqual([{ n: 1 }])
    })
  })
})
