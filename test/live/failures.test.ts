import { getEventListeners } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { SqlError } from 'mariadb'
import { describe, test } from 'vitest'
import type { Pool, Result } from '../../src/index.js'
import { losing, type Loss } from '../../src/testing/relay.js'
import { availableServers, startServer, type Account } from '../../src/testing/server.js'
import {
  DRIVERS,
  failure,
  holdfastError,
  MARIADB,
  PAIRS,
  scene,
  sharedServer,
  soon,
  until,
  untilNotRunning,
  untilRunning,
  openPool,
} from './scene.js'
import { stranger } from './support.js'

const TABLE = 'CREATE TABLE {db}.t (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(200))'
const LOCKED = ['CREATE TABLE {db}.locked (id INT PRIMARY KEY)', 'INSERT INTO {db}.locked VALUES (1)']
/** Waits for `locked()`'s lock without using a CPU, and is interrupted as any statement; SLEEP ends in a way of its own. */
const BLOCKED = 'SELECT id + 1 AS blocked FROM locked FOR UPDATE'
/** The same in the binary protocol and the other. */
const SLOW = 'SELECT SLEEP(30) AS slept'

/** While the block runs, nobody else gets the row of LOCKED. */
async function locked(account: Account, block: () => Promise<void>): Promise<void> {
  const holder = await stranger(account)
  try {
    await holder.query('BEGIN')
    await holder.query('SELECT * FROM locked FOR UPDATE')
    await block()
  } finally {
    holder.destroy()
  }
}

type Run = (sql: string, values?: unknown) => Promise<Result>
/** The two ways to run a single statement. */
const WAYS: [string, (db: Pool, act: (run: Run) => Promise<void>) => Promise<void>][] = [
  ['db.query', (db, act) => act((sql, values) => db.query(sql, values))],
  ['lease.query', (db, act) => db.use((lease) => act((sql, values) => lease.query(sql, values)))],
]

describe.each(PAIRS)('failures on $kind with $driver', { concurrent: true }, ({ kind, driver }) => {
  for (const [way, by] of WAYS) {
    for (const loss of ['reset-after', 'cut-after'] as const satisfies Loss[]) {
      test(`${way}: a write whose reply is lost (${loss}) is not run again, and its effect is unknown`, async ({
        expect,
      }) => {
        await scene(await sharedServer(kind), { driver, relay: {}, setup: TABLE }, async ({ db, relay, count }) => {
          await by(db, async (run) => {
            await run('SELECT 1')
            relay.onRequest = losing('INSERT', loss)
            const error = await holdfastError(run('INSERT INTO t (v) VALUES (?)', ['hush-hush']), 'SESSION_LOST')
            expect(error.effect).toBe('unknown')
            expect(error.cause).toBeInstanceOf(Error)
            expect(error.message).not.toContain('hush-hush')
          })
          expect(relay.losses).toBe(1)
          expect(await count('t')).toBe(1)
          expect((await db.query('SELECT COUNT(*) AS n FROM t')).rows[0].n).toBe(1)
        })
      })
    }

    for (const loss of ['reset-before', 'cut-before'] as const satisfies Loss[]) {
      test(`${way}: a write that was lost on its way (${loss}) is done at most once, and once if it succeeds`, async ({
        expect,
      }) => {
        await scene(await sharedServer(kind), { driver, relay: {}, setup: TABLE }, async ({ db, relay, count }) => {
          let reported: string | undefined
          await by(db, async (run) => {
            await run('SELECT 1')
            relay.onRequest = losing('INSERT', loss)
            reported = await run('INSERT INTO t (v) VALUES (1)').then(
              ({ affectedRows }) => `done ${affectedRows}`,
              (error) => `${error.code} ${error.effect}`,
            )
          })
          expect(relay.losses).toBe(1)
          if (reported === 'done 1') expect(await count('t')).toBe(1)
          else {
            // Nothing tells a request that was lost from a reply that was lost.
            expect(reported).toBe('SESSION_LOST unknown')
            expect(await count('t')).toBe(0)
          }
        })
      })
    }
  }

  test('an idempotent write whose reply is lost is run again', async ({ expect }) => {
    await scene(await sharedServer(kind), { driver, relay: {}, setup: TABLE }, async ({ db, relay, count }) => {
      await db.query('SELECT 1')
      relay.onRequest = losing('REPLACE', 'reset-after', 2)
      const { affectedRows } = await db.query("REPLACE INTO t (id, v) VALUES (7, 'x')", [], { idempotent: true })
      expect(affectedRows).toBeGreaterThan(0)
      expect(relay.losses).toBe(2)
      expect(await count('t')).toBe(1)
      expect(db.stats().total.retries).toBe(2)
    })
  })

  test('a read whose reply is lost fails without idempotent, and is run again with it, prepared or not', async ({
    expect,
  }) => {
    await scene(await sharedServer(kind), { driver, relay: {}, lanes: 'off' }, async ({ db, relay }) => {
      for (const prepare of [false, true]) {
        const read = (word: string, idempotent: boolean): Promise<Result> =>
          db.query('SELECT ? AS word', [word], { prepare, idempotent })
        await read('warm', false) // prepared now, so that the next request is the one to be executed
        relay.onRequest = losing('perishable', 'reset-after')
        expect((await holdfastError(read('perishable', false), 'SESSION_LOST')).effect).toBe('unknown')
        await read('warm', false)
        relay.onRequest = losing('perishable', 'cut-after')
        expect((await read('perishable', true)).rows).toEqual([{ word: 'perishable' }])
      }
      expect(relay.losses).toBe(4)
      // Lost at its PREPARE, a statement was certainly not executed.
      relay.onRequest = losing('never seen before', 'reset-after')
      const { rows } = await db.query("SELECT 'never seen before' AS word", [], { prepare: true })
      expect(rows).toEqual([{ word: 'never seen before' }])
      expect(relay.losses).toBe(5)
    })
  })

  test('KILL CONNECTION under a statement is SESSION_LOST, unknown; the pool and other sessions go on', async ({
    expect,
  }) => {
    const server = await sharedServer(kind)
    await scene(server, { driver, max: 3, setup: LOCKED }, async ({ db, account }) => {
      await locked(account, async () => {
        const bystander = db.query('SELECT SLEEP(0.5) AS s')
        for (const [sql, text] of [
          [BLOCKED, 'blocked'],
          [SLOW, 'slept'],
        ] as const) {
          const victim = failure(db.query(sql))
          victim.catch(() => {})
          await server.kill(await untilRunning(server, account.user, text))
          expect(await victim).toMatchObject({ code: 'SESSION_LOST', effect: 'unknown' })
        }
        expect((await bystander).rows).toEqual([{ s: 0 }])
        expect((await db.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }])
      })
    })
  })

  test('KILL QUERY (1317) leaves session and lease usable, its variables too', async ({ expect }) => {
    const server = await sharedServer(kind)
    await scene(server, { driver, max: 1, setup: LOCKED }, async ({ db, account }) => {
      await locked(account, async () => {
        const before = await db.use(async (lease) => {
          await lease.query('SET @mine = 5')
          const victim = failure(lease.query(BLOCKED))
          await server.query('KILL QUERY ?', [await untilRunning(server, account.user, 'blocked')])
          expect(await victim).toMatchObject({ errno: 1317 })
          expect(Number((await lease.query('SELECT @mine AS m')).rows[0].m)).toBe(5)
          return lease.threadId
        })
        await db.use(async (lease) => expect(lease.threadId).toBe(before))
        expect(db.stats().total.opened).toBe(1)
      })
    })
  })

  test("what the server refuses keeps the driver's class, code and errno, and the session", async ({ expect }) => {
    await scene(await sharedServer(kind), { driver, max: 1, setup: TABLE }, async ({ db }) => {
      await db.query('INSERT INTO t (id) VALUES (1)')
      const refused = {
        1062: ['INSERT INTO t (id) VALUES (1)', 'ER_DUP_ENTRY', '23000'],
        1064: ['SELEC 1', 'ER_PARSE_ERROR', '42000'],
        1146: ['SELECT * FROM nowhere', 'ER_NO_SUCH_TABLE', '42S02'],
      } as const
      for (const [errno, [sql, code, sqlState]] of Object.entries(refused)) {
        for (const prepare of [false, true]) {
          const byPool = await failure(db.query(sql, [], { prepare }))
          const byLease = await db.use((lease) => failure(lease.query(sql, [], { prepare })))
          const byTransaction = await failure(db.transaction((tx) => tx.query(sql, [], { prepare })))
          for (const error of [byPool, byLease, byTransaction]) {
            expect(error).toMatchObject({ errno: Number(errno), code, sqlState })
            if (driver === 'mariadb') expect(error).toBeInstanceOf(SqlError)
            else expect(Object.getPrototypeOf(error)).toBe(Error.prototype)
          }
        }
      }
      expect(db.stats().total.opened).toBe(1)
      expect(await failure(db.query('SELECT * FROM t WHERE v = ? AND', ['hush-hush']))).toMatchObject({ errno: 1064 })
    })
  })

  test("a statement's own time limit on the server ends the statement, and nothing else", async ({ expect }) => {
    const flavour = (await sharedServer(kind)).flavour
    const sessionInit =
      flavour === 'mariadb' ? 'SET SESSION max_statement_time = 0.2' : 'SET SESSION max_execution_time = 200'
    await scene(await sharedServer(kind), { driver, max: 1, sessionInit }, async ({ db }) => {
      const error = await failure(
        db.query(
          `SELECT COUNT(*) FROM ${Array(5)
            .fill('information_schema.COLLATIONS')
            .map((table, n) => `${table} c${n}`)
            .join()}`,
        ),
      )
      expect(error.errno).toBe(flavour === 'mariadb' ? 1969 : 3024)
      expect((await db.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }])
      expect(db.stats().total.opened).toBe(1)
    })
  })

  for (const prepare of [false, true]) {
    test(`timeoutMs rejects at once, ends the statement on the server, and the slot comes back (prepare: ${prepare})`, async ({
      expect,
    }) => {
      const server = await sharedServer(kind)
      await scene(server, { driver, max: 2, setup: LOCKED }, async ({ db, account }) => {
        await locked(account, async () => {
          for (const [sql, text] of [
            [BLOCKED, 'blocked'],
            [SLOW, 'slept'],
          ] as const) {
            await db.query('SELECT 1')
            const error = await soon(
              holdfastError(db.query(sql, [], { prepare, timeoutMs: 600 }), 'QUERY_TIMEOUT'),
              2_000,
            )
            expect(error.effect).toBe('unknown')
            await untilNotRunning(server, account.user, text, 2_000)
            await until(() => db.stats().ghost === 0)
          }
        })
        const all = await soon(Promise.all([1, 2].map(() => db.query('SELECT SLEEP(0.05) AS s'))), 2_000)
        expect(all).toHaveLength(2)
      })
    })
  }

  test('an abort ends the statement likewise, and the reason is the cause', async ({ expect }) => {
    const server = await sharedServer(kind)
    await scene(server, { driver, max: 2, setup: LOCKED }, async ({ db, account }) => {
      await locked(account, async () => {
        const controller = new AbortController()
        const given = new Error('no longer wanted')
        const victim = holdfastError(db.query(BLOCKED, [], { signal: controller.signal }), 'ABORTED')
        await untilRunning(server, account.user, 'blocked')
        controller.abort(given)
        const error = await soon(victim, 1_500)
        expect(error.cause).toBe(given)
        expect(error.effect).toBe('unknown')
        await untilNotRunning(server, account.user, 'blocked', 2_000)
        expect((await failure(db.query('SELECT 1', [], { signal: controller.signal }))).effect).toBe('none')
      })
    })
  })

  test('with max 1 and the only session timed out, the next query is served soon', async ({ expect }) => {
    const server = await sharedServer(kind)
    await scene(server, { driver, max: 1, setup: LOCKED }, async ({ db, account }) => {
      await locked(account, async () => {
        await db.query('SELECT 1')
        await holdfastError(db.query(BLOCKED, [], { timeoutMs: 600 }), 'QUERY_TIMEOUT')
        expect((await soon(db.query('SELECT 1 AS one'), 2_500)).rows).toEqual([{ one: 1 }])
        await untilNotRunning(server, account.user, 'blocked', 2_000)
      })
    })
  })

  test('a timed-out statement on a lease ends the lease; its release does no harm', async () => {
    const server = await sharedServer(kind)
    await scene(server, { driver, max: 2, setup: LOCKED }, async ({ db, account }) => {
      await locked(account, async () => {
        const lease = await db.acquire()
        await soon(holdfastError(lease.query(BLOCKED, [], { timeoutMs: 300 }), 'QUERY_TIMEOUT'), 1_500)
        await holdfastError(lease.query('SELECT 1'), 'SESSION_LOST')
        lease.release()
        await holdfastError(lease.query('SELECT 1'), 'LEASE_RELEASED')
        await untilNotRunning(server, account.user, 'blocked', 2_000)
      })
    })
  })
})

describe.each(DRIVERS.map((driver) => ({ driver })))(
  'failures on MariaDB with $driver',
  { concurrent: true },
  ({ driver }) => {
    test('a deadlock of a single statement in autocommit is run again', async ({ expect }) => {
      const server = await sharedServer(MARIADB)
      const setup = [
        'CREATE TABLE {db}.t (id INT PRIMARY KEY, v INT)',
        'INSERT INTO {db}.t SELECT seq, 0 FROM {db}.seq_1_to_200',
      ]
      await scene(server, { driver, setup }, async ({ db, account, root }) => {
        await db.use(async (heavy) => {
          await heavy.query('BEGIN')
          await heavy.query('UPDATE t SET v = 1 WHERE id BETWEEN 2 AND 200')
          const single = db.query('UPDATE t SET v = v + 10 WHERE id IN (1, 2)')
          await untilRunning(server, account.user, 'v + 10')
          await heavy.query('UPDATE t SET v = 1 WHERE id = 1') // the lighter one is the victim
          await heavy.query('COMMIT')
          expect((await single).affectedRows).toBe(2)
        })
        expect(db.stats().total.retries).toBeGreaterThan(0)
        expect(await root('SELECT v FROM {db}.t WHERE id < 4')).toEqual([{ v: 11 }, { v: 11 }, { v: 1 }])
      })
    })

    test('a deadlock in a text of several statements, or in a procedure, is not run again: a part of it is done', async ({
      expect,
    }) => {
      const server = await sharedServer(MARIADB)
      const setup = [
        'CREATE TABLE {db}.log (what VARCHAR(20))',
        'CREATE TABLE {db}.t (id INT PRIMARY KEY, v INT)',
        'INSERT INTO {db}.t SELECT seq, 0 FROM {db}.seq_1_to_200',
        "CREATE PROCEDURE {db}.both() SQL SECURITY INVOKER BEGIN INSERT INTO log VALUES ('both'); UPDATE t SET v = v + 10 WHERE id IN (1, 2); END",
      ]
      const options = { driver, setup, driverOptions: { multipleStatements: true } }
      await scene(server, options, async ({ db, account, root }) => {
        for (const sql of [
          'CALL `both`()',
          "INSERT INTO log VALUES ('both'); UPDATE t SET v = v + 10 WHERE id IN (1, 2)",
        ]) {
          await db.use(async (heavy) => {
            await heavy.query('BEGIN')
            await heavy.query('UPDATE t SET v = v + 1 WHERE id BETWEEN 2 AND 200')
            const victim = failure(db.query(sql))
            victim.catch(() => {})
            await until(async () => (await server.sessions(account.user)).some((row) => row.command !== 'Sleep'))
            await sleep(50)
            await heavy.query('UPDATE t SET v = 1 WHERE id = 1')
            await heavy.query('COMMIT')
            expect(await victim).toMatchObject({ errno: 1213 })
          })
          expect(await root('SELECT what FROM {db}.log')).toEqual([{ what: 'both' }])
          await root('DELETE FROM {db}.log')
        }
      })
    })

    test('the time budget counts the wait in line', async ({ expect }) => {
      const server = await sharedServer(MARIADB)
      await scene(server, { driver, max: 1 }, async ({ db }) => {
        const lease = await db.acquire()
        const never = await soon(failure(db.query('SELECT 1', [], { timeoutMs: 150 })), 1_000)
        expect(['QUERY_TIMEOUT', 'POOL_ACQUIRE_TIMEOUT']).toContain(never.code)
        expect(never.effect).toBe('none')
        const started = performance.now()
        const late = holdfastError(db.query('SELECT SLEEP(20)', [], { timeoutMs: 900 }), 'QUERY_TIMEOUT')
        await sleep(600)
        lease.release()
        await late
        expect(performance.now() - started).toBeGreaterThan(850)
        expect(performance.now() - started).toBeLessThan(1_400)
      })
    })

    test('queryTimeoutMs is the default of timeoutMs: for the pool, leases and transactions', async ({ expect }) => {
      const server = await sharedServer(MARIADB)
      await scene(server, { driver, max: 2, queryTimeoutMs: 400 }, async ({ db, account }) => {
        await soon(holdfastError(db.query('SELECT SLEEP(20)'), 'QUERY_TIMEOUT'), 1_200)
        await soon(
          holdfastError(
            db.use((lease) => lease.query('SELECT SLEEP(20)')),
            'QUERY_TIMEOUT',
          ),
          1_200,
        )
        await soon(
          holdfastError(
            db.transaction((tx) => tx.query('SELECT SLEEP(20)')),
            'QUERY_TIMEOUT',
          ),
          1_200,
        )
        expect((await db.query('SELECT SLEEP(0.4) AS s', [], { timeoutMs: 5_000 })).rows).toEqual([{ s: 0 }])
        await untilNotRunning(server, account.user, 'SLEEP(20)', 2_000)
      })
    })

    test('a timed-out write says unknown, and on the server it is ended, not committed later', async ({ expect }) => {
      const server = await sharedServer(MARIADB)
      await scene(server, { driver, max: 2, setup: TABLE }, async ({ db, count, account }) => {
        const slow = db.query("INSERT INTO t (v) SELECT 'late' FROM (SELECT SLEEP(1.5)) s", [], { timeoutMs: 500 })
        expect((await holdfastError(slow, 'QUERY_TIMEOUT')).effect).toBe('unknown')
        await untilNotRunning(server, account.user, 'SLEEP(1.5)')
        await sleep(1_500)
        expect(await count('t')).toBe(0)
      })
    })

    test('statements that time out at the account limit give their slots back, and nobody sees 1226', async ({
      expect,
    }) => {
      const server = await sharedServer(MARIADB)
      await scene(server, { driver, max: 10, account: { maxUserConnections: 3 } }, async ({ db, account }) => {
        await Promise.all([1, 2, 3].map(() => db.query('SELECT SLEEP(0.05)')))
        for (let round = 0; round < 5; round++) {
          const slow = [1, 2].map(() =>
            holdfastError(db.query('SELECT SLEEP(20)', [], { timeoutMs: 300 }), 'QUERY_TIMEOUT'),
          )
          const quick = Array.from({ length: 20 }, () => db.query('SELECT SLEEP(0.01) AS s'))
          expect(await soon(Promise.all(quick), 3_000)).toHaveLength(20)
          await soon(Promise.all(slow), 1_500)
          await untilNotRunning(server, account.user, 'SLEEP(20)', 1_500)
        }
      })
    })

    test('a statement that times out while all other sessions are at work is ended on the server all the same', async ({
      expect,
    }) => {
      const server = await sharedServer(MARIADB)
      await scene(server, { driver, max: 2 }, async ({ db, account }) => {
        const other = await db.acquire()
        await db.query('SELECT 1')
        const long = other.query('SELECT SLEEP(6) AS long_job')
        long.catch(() => {})
        await holdfastError(db.query('SELECT SLEEP(20) AS slept', [], { timeoutMs: 300 }), 'QUERY_TIMEOUT')
        await untilNotRunning(server, account.user, 'slept', 3_000)
        expect((await soon(db.query('SELECT 1 AS one'), 2_000)).rows).toEqual([{ one: 1 }])
        expect(db.stats().leased).toBe(1)
        for (const { id, info } of await server.sessions(account.user))
          if (info?.includes('long_job')) await server.kill(id)
        await failure(long)
        other.release()
      })
    })

    test('a procedure of another DEFINER, which nobody may see or end: its slot is a ghost until it is over', async ({
      expect,
    }) => {
      const nap = driver === 'mysql2' ? 'SLEEP(3.01)' : 'SLEEP(3.02)'
      const setup = `CREATE DEFINER = root@localhost PROCEDURE {db}.slow() DO ${nap}`
      await scene(await sharedServer(MARIADB), { driver, max: 2, setup }, async ({ db, server }) => {
        await db.query('SELECT 1')
        const running = async (): Promise<boolean> =>
          (await server.sessions('root')).some((row) => row.info?.includes(nap))
        await holdfastError(db.query('CALL slow()', [], { timeoutMs: 300 }), 'QUERY_TIMEOUT')
        await until(async () => {
          const isGhost = db.stats().ghost === 1
          if (await running()) expect(isGhost).toBe(true)
          return !isGhost
        }, 8_000)
      })
    })

    test('with every session of a full account timed out, work goes on when the server lets go of them', async ({
      expect,
    }) => {
      const server = await sharedServer(MARIADB)
      await scene(server, { driver, max: 10, account: { maxUserConnections: 3 } }, async ({ db }) => {
        await Promise.all([1, 2, 3].map(() => db.query('SELECT SLEEP(0.05)')))
        const slow = [1, 2, 3].map(() =>
          holdfastError(db.query('SELECT SLEEP(3)', [], { timeoutMs: 400 }), 'QUERY_TIMEOUT'),
        )
        await soon(Promise.all(slow), 1_500)
        const after = Array.from({ length: 20 }, () => db.query('SELECT 1 AS one'))
        expect(await soon(Promise.all(after), 6_000)).toHaveLength(20)
      })
    })

    test('a silent network: timeoutMs rejects in time, and the pool recovers when it is heard again', async ({
      expect,
    }) => {
      const server = await sharedServer(MARIADB)
      await scene(server, { driver, max: 2, relay: {}, connectTimeoutMs: 500 }, async ({ db, relay }) => {
        await Promise.all([1, 2].map(() => db.query('SELECT SLEEP(0.05)')))
        relay.stall()
        const silent = [1, 2, 3].map((n) => failure(db.query(`SELECT ${n}`, [], { timeoutMs: 400 })))
        for (const error of await soon(Promise.all(silent), 1_500)) {
          expect(['QUERY_TIMEOUT', 'POOL_ACQUIRE_TIMEOUT']).toContain(error.code)
        }
        relay.resume()
        expect((await soon(db.query('SELECT 1 AS one'), 4_000)).rows).toEqual([{ one: 1 }])
      })
    })

    test('timeouts and aborts in a hail: every answer is its own, and nothing is left', async ({ expect }) => {
      const server = await sharedServer(MARIADB)
      await scene(
        server,
        { driver, max: 4, account: { maxUserConnections: 6 }, setup: TABLE },
        async ({ db, account }) => {
          const outcomes: string[] = []
          const one = async (n: number): Promise<void> => {
            const controller = new AbortController()
            const options = n % 3 === 0 ? { timeoutMs: 1 + (n % 40) } : n % 3 === 1 ? { signal: controller.signal } : {}
            if (n % 3 === 1) setTimeout(() => controller.abort(), n % 30)
            const prepare = n % 5 === 0
            try {
              const { rows } = await db.query('SELECT ? AS n, SLEEP(?) AS hail', [n, (n % 7) / 500], {
                ...options,
                prepare,
              })
              outcomes.push(Number(rows[0].n) === n ? 'right' : `wrong: ${rows[0].n} for ${n}`)
            } catch (error) {
              outcomes.push((error as { code: string }).code)
            }
          }
          for (let wave = 0; wave < 6; wave++) {
            await soon(Promise.all(Array.from({ length: 60 }, (_, n) => one(wave * 60 + n))), 10_000)
          }
          expect(outcomes).toHaveLength(360)
          const allowed = ['right', 'QUERY_TIMEOUT', 'POOL_ACQUIRE_TIMEOUT', 'ABORTED']
          expect(outcomes.filter((each) => !allowed.includes(each))).toEqual([])
          expect(outcomes.filter((each) => each === 'right').length).toBeGreaterThanOrEqual(120)
          await untilNotRunning(server, account.user, 'hail')
          expect(await soon(Promise.all([1, 2, 3, 4].map(() => db.query('SELECT SLEEP(0.05)'))))).toHaveLength(4)
        },
      )
    })

    test('one signal for all that waits and runs: no listener is left on it, and no warning', async ({ expect }) => {
      const setup = [TABLE, 'INSERT INTO {db}.t (v) VALUES (1), (2), (3)']
      await scene(await sharedServer(MARIADB), { driver, max: 15, setup }, async ({ db }) => {
        const warnings: Error[] = []
        const onWarning = (warning: Error): void =>
          void (warning.name.startsWith('MaxListeners') && warnings.push(warning))
        process.on('warning', onWarning)
        const { signal } = new AbortController()
        const before = getEventListeners(signal, 'abort').length
        await Promise.all(Array.from({ length: 100 }, () => db.query('SELECT SLEEP(0.01)', [], { signal })))
        await Promise.all(
          Array.from({ length: 20 }, () => db.transaction((tx) => tx.query('SELECT 1', [], { signal }), { signal })),
        )
        await db.use(
          (lease) => Promise.all(Array.from({ length: 50 }, () => lease.query('SELECT 1', [], { signal }))),
          { signal },
        )
        for (let n = 0; n < 20; n++)
          for await (const _row of db.stream('SELECT * FROM t', [], { signal })) if (n % 2) break
        for (let n = 0; n < 20; n++) await failure(db.query('SELEC', [], { signal }))
        await sleep(20)
        expect(getEventListeners(signal, 'abort').length).toBe(before)
        process.off('warning', onWarning)
        expect(warnings.map(({ message }) => message)).toEqual([])
      })
    })

    test('a server that stands still: timeoutMs rejects in time, and all goes on when it moves again', async ({
      expect,
    }) => {
      await using server = await startServer(MARIADB)
      await scene(server, { driver, max: 2, setup: TABLE }, async ({ db, count }) => {
        await Promise.all([1, 2].map(() => db.query('SELECT SLEEP(0.05)')))
        await server.freeze()
        const stuck = Array.from({ length: 5 }, (_, n) => {
          const work = db.query('INSERT INTO t (v) VALUES (?)', [n], { timeoutMs: 500 })
          return soon(failure(work), 2_500)
        })
        for (const error of await Promise.all(stuck)) {
          expect(['QUERY_TIMEOUT', 'POOL_ACQUIRE_TIMEOUT']).toContain(error.code)
        }
        server.thaw()
        expect((await soon(db.query('SELECT 1 AS one'), 6_000)).rows).toEqual([{ one: 1 }])
        expect(await count('t')).toBeLessThanOrEqual(2)
      })
    })

    test('two hundred reads under way when the network resets: all are run again, with few dials', async ({
      expect,
    }) => {
      await scene(await sharedServer(MARIADB), { driver, max: 5, relay: { delayMs: 2 } }, async ({ db, relay }) => {
        await db.query('SELECT 1')
        const reads = Array.from({ length: 200 }, (_, n) =>
          db.query('SELECT ? AS n, SLEEP(0.005)', [n], { idempotent: true }).then(({ rows }) => Number(rows[0].n)),
        )
        for (let round = 0; round < 4; round++) {
          await sleep(40)
          relay.reset()
        }
        expect(await soon(Promise.all(reads), 10_000)).toEqual([...Array(200).keys()])
        expect(relay.accepted).toBeLessThan(60)
      })
    })

    test('concurrent queries on one lease run in their order, and a queued one that is aborted disturbs nobody', async ({
      expect,
    }) => {
      const server = await sharedServer(MARIADB)
      await scene(server, { driver, max: 1, setup: TABLE }, async ({ db, root }) => {
        await db.use(async (lease) => {
          const controller = new AbortController()
          const slow = lease.query('SELECT SLEEP(0.3) AS s')
          const queued = Array.from({ length: 20 }, (_, n) => {
            const options = n === 3 ? { signal: controller.signal } : n === 7 ? { timeoutMs: 50 } : {}
            return lease.query('INSERT INTO t (v) VALUES (?)', [`${n}`], options)
          })
          for (const each of queued) each.catch(() => {})
          controller.abort()
          expect(await holdfastError(queued[3] as Promise<unknown>, 'ABORTED')).toMatchObject({ effect: 'none' })
          expect(await holdfastError(queued[7] as Promise<unknown>, 'QUERY_TIMEOUT')).toMatchObject({ effect: 'none' })
          expect((await slow).rows).toEqual([{ s: 0 }])
          await Promise.allSettled(queued)
          expect((await lease.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }])
        })
        const kept = (await root<{ v: string }>('SELECT v FROM {db}.t ORDER BY id')).map(({ v }) => Number(v))
        expect(kept).toEqual([...Array(20).keys()].filter((n) => n !== 3 && n !== 7))
      })
    })

    test('a driver that refuses the arguments harms nobody', async ({ expect }) => {
      const server = await sharedServer(MARIADB)
      await scene(server, { driver, max: 1, setup: TABLE }, async ({ db }) => {
        const error = await failure(db.query('SELECT ? AS x', [undefined], { prepare: true })).catch(() => undefined)
        if (error) expect(error).toBeInstanceOf(Error)
        await failure(db.query('SELECT ?, ?', [], { prepare: true }))
        expect((await soon(db.query('SELECT 1 AS one'))).rows).toEqual([{ one: 1 }])
        const { rows } = await db.query('SELECT ? AS a, ? AS b', ["it's", null])
        expect(rows).toEqual([{ a: "it's", b: null }])
      })
    })

    test('a session that was killed while idle fails nobody: noticed, or by the free look', async ({ expect }) => {
      const server = await sharedServer(MARIADB)
      await scene(server, { driver, max: 1, trustMs: 0, setup: TABLE }, async ({ db, account, count }) => {
        for (let round = 1; round <= 15; round++) {
          await db.query('SELECT 1')
          for (const { id } of await server.sessions(account.user)) await server.kill(id)
          await server.untilNoSessions(account.user)
          await db.query('INSERT INTO t (v) VALUES (?)', [round])
        }
        expect(await count('t')).toBe(15)
      })
    })

    test('a session that dies idle on a lease: SESSION_LOST, and nothing was done', async ({ expect }) => {
      const server = await sharedServer(MARIADB)
      await scene(server, { driver, max: 1, setup: TABLE }, async ({ db, count }) => {
        await db.use(async (lease) => {
          await server.kill(lease.threadId)
          await sleep(100)
          const error = await holdfastError(lease.query('INSERT INTO t (v) VALUES (1)'), 'SESSION_LOST')
          expect(error.effect).toBe('none')
        })
        expect(await count('t')).toBe(0)
        expect((await db.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }])
      })
    })

    test('under KILLs and resets at random, what succeeds was done once, what says none was not done', async ({
      expect,
    }) => {
      const server = await sharedServer(MARIADB)
      const setup = 'CREATE TABLE {db}.t (n INT, KEY (n))'
      await scene(server, { driver, max: 5, relay: {}, setup }, async ({ db, account, relay, root }) => {
        const over = new AbortController()
        const chaos = (async () => {
          for (let round = 0; !over.signal.aborted; round++) {
            await sleep(15)
            if (round % 3 === 0) relay.reset()
            else for (const { id } of await server.sessions(account.user)) await server.kill(id).catch(() => {})
          }
        })()
        const told = new Map<number, string>()
        const worker = async (first: number): Promise<void> => {
          for (let n = first; n < first + 100; n++) {
            const sql = n % 4 === 0 ? 'INSERT INTO t SELECT ? FROM (SELECT SLEEP(0.005)) s' : 'INSERT INTO t VALUES (?)'
            await db.query(sql, [n]).then(
              () => told.set(n, 'done'),
              (error) => told.set(n, error.effect ?? `${error}`),
            )
          }
        }
        await soon(Promise.all([0, 1000, 2000, 3000, 4000].map(worker)), 20_000)
        over.abort()
        await chaos
        const rows = await root<{ n: number; times: number }>('SELECT n, COUNT(*) times FROM {db}.t GROUP BY n')
        const done = new Map(rows.map(({ n, times }) => [n, times]))
        const wrong = [...told].filter(([n, what]) => {
          const times = done.get(n) ?? 0
          return what === 'done' ? times !== 1 : what === 'none' ? times !== 0 : what === 'unknown' ? times > 1 : true
        })
        expect(wrong).toEqual([])
        expect([...told.values()].filter((what) => what === 'done').length).toBeGreaterThan(100)
      })
    })

    test('a drained pool refuses with POOL_CLOSED; so does one whose drain waits for a lease', async ({ expect }) => {
      const server = await sharedServer(MARIADB)
      await scene(server, { driver, max: 1, setup: TABLE }, async ({ db, count }) => {
        const lease = await db.acquire()
        const inLine = failure(db.query('SELECT 1'))
        const drained = db.drain({ timeoutMs: 5_000 })
        expect(await inLine).toMatchObject({ code: 'POOL_CLOSED', effect: 'none' })
        await holdfastError(db.query('SELECT 1'), 'POOL_CLOSED')
        await holdfastError(db.acquire(), 'POOL_CLOSED')
        await holdfastError(
          db.transaction(async () => {}),
          'POOL_CLOSED',
        )
        await holdfastError(db.stream('SELECT 1').next(), 'POOL_CLOSED')
        await lease.query('INSERT INTO t (v) VALUES (1)') // a lease may finish
        lease.release()
        await soon(drained, 1_500)
        expect(db.drain()).toBe(drained)
        await holdfastError(db.query('SELECT 1'), 'POOL_CLOSED')
        expect(await count('t')).toBe(1)
      })
    })
  },
)

// The event loop is blocked: nothing else may run beside this.
test('wait_timeout passes while the event loop is blocked: no query fails, and a lease is told that nothing was done', async ({
  expect,
}) => {
  await Promise.all(PAIRS.map(({ kind }) => sharedServer(kind)))
  let ready = 0
  let wake = (): void => {}
  const allAreReady = new Promise<void>((resolve) => (wake = resolve))
  const blocked = allAreReady.then(() => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1_600))
  const each = async ({ kind, driver }: (typeof PAIRS)[number]): Promise<void> => {
    const options = { driver, max: 4, sessionInit: 'SET SESSION wait_timeout = 1', setup: TABLE }
    await scene(await sharedServer(kind), options, async ({ db, count }) => {
      const lease = await db.acquire()
      await Promise.all([1, 2, 3].map(() => db.query('SELECT SLEEP(0.05)')))
      await lease.query('SELECT 1')
      if (++ready === PAIRS.length) wake()
      await blocked
      const onLease = failure(lease.query('INSERT INTO t (v) VALUES (1)'))
      const done = await Promise.allSettled([1, 2, 3, 4].map((v) => db.query('INSERT INTO t (v) VALUES (?)', [v])))
      expect(done.map((one) => (one.status === 'rejected' ? one.reason : 'done'))).toEqual(Array(4).fill('done'))
      expect(await onLease).toMatchObject({ code: 'SESSION_LOST', effect: 'none' })
      lease.release()
      expect(await count('t')).toBe(4)
    })
  }
  await Promise.all(PAIRS.map(each))
})

// Each on a server of its own, both drivers one after the other: starting a MySQL is what takes the time.
describe.each(availableServers().map((kind) => ({ kind })))(
  'failures on a $kind',
  { concurrent: true, timeout: 90_000 },
  ({ kind }) => {
    test('SIGKILL and restart of the server under statements: they fail, and the pool goes on by itself', async ({
      expect,
    }) => {
      await using server = await startServer(kind)
      for (const driver of DRIVERS)
        await scene(server, { driver, max: 3, acquireTimeoutMs: 25_000, setup: TABLE }, async ({ db, account }) => {
          const under = [1, 2].map(() => failure(db.query(SLOW)))
          const idempotent = db.query('SELECT SLEEP(1), 42 AS answer', [], { idempotent: true })
          await until(
            async () =>
              (await server.sessions(account.user)).filter(({ state }) => state === 'User sleep').length === 3,
          )
          const down = server.restart('SIGKILL')
          for (const error of await Promise.all(under)) {
            expect(error).toMatchObject({ code: 'SESSION_LOST', effect: 'unknown' })
          }
          // While it is down, and was not under way: it waits.
          const waiting = Promise.all([1, 2, 3].map((n) => db.query('INSERT INTO t (v) VALUES (?)', [n])))
          waiting.catch(() => {})
          await down
          expect(Number((await idempotent).rows[0].answer)).toBe(42)
          expect(await waiting).toHaveLength(3)
          expect((await db.query('SELECT COUNT(*) AS n FROM t')).rows[0].n).toBe(3)
        })
    })

    test('a statement that is too large: PACKET_TOO_LARGE, not executed, others unharmed, and the pool goes on', async ({
      expect,
    }) => {
      await using server = await startServer(kind, { flags: ['--max-allowed-packet=1M'] })
      const setup = 'CREATE TABLE {db}.t (id INT PRIMARY KEY AUTO_INCREMENT, v LONGTEXT)'
      for (const driver of DRIVERS)
        await scene(server, { driver, max: 3, setup }, async ({ db, count }) => {
          await Promise.all([1, 2, 3].map(() => db.query('SELECT SLEEP(0.05)')))
          const bystander = db.query('SELECT SLEEP(0.5) AS s')
          for (const megabytes of [1.5, 20]) {
            const values = ['x'.repeat(megabytes * 1024 * 1024)]
            const sql = 'INSERT INTO t (v) VALUES (?)'
            const byPool = await holdfastError(soon(db.query(sql, values), 5_000), 'PACKET_TOO_LARGE')
            expect(byPool.effect).toBe('none')
            expect(byPool.message).toContain('max_allowed_packet')
            expect(byPool.message.length).toBeLessThan(1_000)
            const byLease = await db.use((lease) => holdfastError(lease.query(sql, values), 'PACKET_TOO_LARGE'))
            expect(byLease.effect).toBe('none')
            let runs = 0
            const inTransaction = db.transaction(async (tx) => {
              runs++
              await tx.query("INSERT INTO t (v) VALUES ('small')")
              await tx.query(sql, values)
            })
            expect((await holdfastError(inTransaction, 'PACKET_TOO_LARGE')).effect).toBe('rolled-back')
            expect(runs).toBe(1)
          }
          expect((await bystander).rows).toEqual([{ s: 0 }])
          await db.query('INSERT INTO t (v) VALUES (?)', ['x'.repeat(900_000)])
          expect(await count('t')).toBe(1)
        })
    })

    test('a write that waits for a lock is undone by the shutdown; it is done once if reported so', async ({
      expect,
    }) => {
      await using server = await startServer(kind)
      const setup = ['CREATE TABLE {db}.t (id INT PRIMARY KEY, v INT)', 'INSERT INTO {db}.t VALUES (1, 0)']
      for (const driver of DRIVERS)
        await scene(server, { driver, max: 2, acquireTimeoutMs: 25_000, setup }, async ({ account, db, count }) => {
          const holder = openPool(account.url, driver)
          const lock = await holder.acquire()
          await lock.query('BEGIN')
          await lock.query('UPDATE t SET v = 100')
          const write = db.query('UPDATE t SET v = v + 1').then(
            () => 'done',
            (error) => `${error.code} ${error.effect}`,
          )
          await untilRunning(server, account.user, 'v + 1')
          await server.restart('SIGTERM')
          lock.release()
          await holder.drain({ timeoutMs: 500 })
          const told = await soon(write, 28_000)
          if (told === 'done') expect(await count('t', 'v = 1')).toBe(1)
          else {
            expect(told).toBe('SESSION_LOST unknown')
            expect(await count('t', 'v IN (0, 1)')).toBe(1)
          }
          expect((await db.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }])
        })
    })
  },
)
