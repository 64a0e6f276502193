import { describe, test } from 'vitest'
import type { Pool, PoolOptions, Stats } from '../../src/index.js'
import { startScript } from '../../src/testing/process.js'
import type { Link } from '../../src/testing/relay.js'
import { startServer, type TestServer } from '../../src/testing/server.js'
import { keepReading, nap, NAPS, pointRead, readAll, ROWS, SETUP, summary, type Read } from './lane-support.js'
import {
  failure,
  holdfastError,
  openPool,
  PAIRS,
  scene,
  sharedServer,
  soon,
  until,
  untilNotRunning,
  untilRunning,
} from './scene.js'
import { crowd, optionsFor, sleep, stranger, tally, troubles } from './support.js'

const CALLERS = 300

/** Mixed with what the server refuses, and with rows that come in many packets. */
const mixed: Read = async (db, n) => {
  const prepare = n % 2 === 0
  if (n % 20 === 3) return refused(db.query(`SELECT ${n} FROM WHERE`), 1064)
  if (n % 20 === 10) return refused(db.query('SELECT ? AS n FROM nowhere', [n], { prepare: n % 200 === 10 }), 1146)
  if (n % 500 === 7) {
    const { rows } = await db.query("SELECT ? AS n, REPEAT('x', 5000) AS big, v FROM t ORDER BY id", [n], { prepare })
    const isAll = rows.length === ROWS && rows.every((row, at) => row.v === `row ${at + 1}` && row.big.length === 5_000)
    return isAll && Number(rows[0].n) === n ? undefined : `not the big rows of ${n}`
  }
  return pointRead({ prepare })(db, n)
}

async function refused(work: Promise<unknown>, errno: number): Promise<string | undefined> {
  const error = await failure(work)
  return error.errno === errno ? undefined : `${error.errno} instead of ${errno}: ${error.message}`
}

/** The texts of a pool's forms that bounced. */
const shapes = (db: Pool): string[] => db.stats().lanes.bounces.map((bounce) => bounce.shape)
const lanes = (db: Pool): Stats['lanes'] => db.stats().lanes
const total = (db: Pool): Stats['total'] => db.stats().total

describe.each(PAIRS)('lanes on $kind with $driver', { concurrent: true }, ({ kind, driver }) => {
  const onlyRead = kind.startsWith('mysql') ? '@@session.transaction_read_only' : '@@session.tx_read_only'

  // ---- 1. each gets its own

  const CROWDS: [number, string, Read, number, number][] = [
    [20_000, 'as text, at max 1', pointRead(), 1, 0],
    [20_000, 'as text, at max 3', pointRead(), 3, 0],
    [10_000, 'prepared, at max 1', pointRead({ prepare: true }), 1, 0],
    [20_000, 'prepared, at max 3, over a network', pointRead({ prepare: true }), 3, 1],
    [5_000, 'mixed with failing ones and with big rows, at max 1, over a network', mixed, 1, 1],
    [20_000, 'mixed with failing ones and with big rows, at max 3', mixed, 3, 0],
  ]
  test.for(CROWDS)(
    '%i reads from a cold pool, %s, each get their own row',
    async ([many, , read, max, delayMs], { expect }) => {
      const relay = delayMs > 0 ? { relay: { delayMs } } : {}
      await scene(await sharedServer(kind), { driver, max, setup: SETUP, ...relay }, async ({ db }) => {
        let most = 0
        const watch = setInterval(() => (most = Math.max(most, db.stats().held)), 5)
        const wrong = await readAll(db, many, CALLERS, read).finally(() => clearInterval(watch))
        expect(summary(wrong)).toEqual({})
        expect(lanes(db)).toMatchObject({ on: true, bounces: [], reasons: {}, reads: { lane: many, lease: 0 } })
        expect(total(db)).toMatchObject({ retries: 0, timedOut: 0, refused: 0 })
        expect(most).toBeLessThanOrEqual(max)
        // One that the machine held up for a moment may have been run elsewhere, and its session ended.
        expect(total(db).opened).toBeLessThanOrEqual(2 * max)
      })
    },
  )

  test('reads at once with a crowd of other forms, all unknown, each get their own row', async ({ expect }) => {
    await scene(await sharedServer(kind), { driver, max: 3, setup: SETUP }, async ({ db }) => {
      const asked = Array.from({ length: 900 }, (_, n) => ({ form: n % 150, id: (n % ROWS) + 1 }))
      const answers = await Promise.all(
        asked.map(({ form, id }) => db.query(`SELECT v, id AS id_${form} FROM t WHERE id = ?`, [id])),
      )
      const wanted = asked.map(({ form, id }) => [{ v: `row ${id}`, [`id_${form}`]: id }])
      expect(answers.map(({ rows }) => rows.map((row) => ({ ...row })))).toEqual(wanted)
      expect(total(db).retries).toBe(0)
    })
  })

  // ---- 2. reads that write

  const WRITERS: readonly string[] = [
    ...SETUP,
    'CREATE TABLE {db}.log (n INT, at TIMESTAMP DEFAULT CURRENT_TIMESTAMP)',
    'CREATE TABLE {db}.old_log (n INT) ENGINE = MyISAM',
    `CREATE FUNCTION {db}.note(n INT) RETURNS INT MODIFIES SQL DATA
     BEGIN INSERT INTO {db}.log (n) VALUES (n); RETURN n * 2; END`,
    `CREATE FUNCTION {db}.note_late(n INT) RETURNS INT MODIFIES SQL DATA
     BEGIN DECLARE m INT; SELECT COUNT(*) INTO m FROM {db}.t; INSERT INTO {db}.old_log (n) VALUES (n); RETURN n * 2; END`,
    // Whatever happens in it, it goes on.
    `CREATE FUNCTION {db}.note_anyway(n INT) RETURNS INT MODIFIES SQL DATA
     BEGIN DECLARE CONTINUE HANDLER FOR SQLEXCEPTION BEGIN END; INSERT INTO {db}.log (n) VALUES (n); RETURN n * 2; END`,
    'CREATE VIEW {db}.noting AS SELECT id, {db}.note(id) AS noted FROM {db}.t',
    'CREATE VIEW {db}.noting_anyway AS SELECT id, {db}.note_anyway(id) AS noted FROM {db}.t',
    'CREATE VIEW {db}.noting_late AS SELECT id, {db}.note_late(id) AS noted FROM {db}.t',
  ]

  test('a SELECT with a stored function that writes gets a lease by its text, and is executed once', async ({
    expect,
  }) => {
    await scene(await sharedServer(kind), { driver, max: 2, setup: WRITERS }, async ({ db, count }) => {
      const answers = await Promise.all(
        Array.from({ length: 30 }, (_, n) => db.query('SELECT note(?) AS noted', [n], { prepare: n % 2 === 0 })),
      )
      expect(answers.map(({ rows }) => Number(rows[0].noted))).toEqual(answers.map((_, n) => n * 2))
      expect(await count('log')).toBe(30)
      expect(lanes(db)).toMatchObject({ bounces: [], reads: { lane: 0, lease: 30 } })
    })
  })

  for (const [view, log] of [
    ['noting', 'log'],
    ['noting_anyway', 'log'],
    ['noting_late', 'old_log'],
  ] as const) {
    test(`a read that writes by way of the view ${view} bounces, runs once on a lease, and its form is known then`, async ({
      expect,
    }) => {
      await scene(await sharedServer(kind), { driver, max: 2, setup: WRITERS }, async ({ db, count }) => {
        await db.query('SELECT 1')
        const sql = (id: number, word: string): string =>
          `SELECT noted, '${word}' AS word FROM ${view} WHERE id = ${id}`
        const { rows } = await db.query(sql(7, 'hush-hush'))
        expect(rows).toMatchObject([{ noted: 14, word: 'hush-hush' }])
        expect(await count(log)).toBe(1)
        expect(lanes(db).bounces).toEqual([{ shape: expect.stringContaining(view), count: 1 }])
        expect(shapes(db).join()).not.toMatch(/hush-hush|7/)
        const reads = lanes(db).reads
        await db.query(sql(8, 'quiet'))
        expect(lanes(db).bounces).toMatchObject([{ count: 1 }])
        expect(lanes(db).reads).toEqual({ lane: reads.lane, lease: reads.lease + 1 })
        expect(await count(log)).toBe(2)
        expect(await count(log, 'n = 7')).toBe(1)
      })
    })

    test(`a crowd of reads that write by way of the view ${view} are each executed once, among others that do not`, async ({
      expect,
    }) => {
      await scene(await sharedServer(kind), { driver, max: 3, setup: WRITERS }, async ({ db, count }) => {
        using readers = keepReading(db, 20)
        await until(() => readers.done > 100)
        const writers = Array.from({ length: 60 }, (_, n) => n + 1)
        const answers = await Promise.all(
          writers.map((id) => db.query(`SELECT noted FROM ${view} WHERE id = ?`, [id], { prepare: id % 2 === 0 })),
        )
        await readers.stop()
        expect(answers.map(({ rows }) => rows[0].noted)).toEqual(writers.map((id) => id * 2))
        expect(await count(log)).toBe(60)
        expect(await count(log, 'n BETWEEN 1 AND 60')).toBe(60)
        expect(summary(readers.wrong)).toEqual({})
        expect(total(db).retries).toBe(0)
      })
    })
  }

  if (kind.startsWith('mariadb')) {
    test("a read of MariaDB's sequence in a view takes one value", async ({ expect }) => {
      const setup = ['CREATE SEQUENCE {db}.s', 'CREATE VIEW {db}.numbers AS SELECT NEXTVAL({db}.s) AS n']
      await scene(await sharedServer(kind), { driver, max: 2, setup }, async ({ db }) => {
        const first = await db.query('SELECT n FROM numbers')
        const rest = await Promise.all(Array.from({ length: 9 }, () => db.query('SELECT n FROM numbers')))
        const all = [first, ...rest].map(({ rows }) => Number(rows[0].n)).toSorted((a, b) => a - b)
        expect(all).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
        expect(lanes(db).bounces).toEqual([{ shape: 'SELECT n FROM numbers', count: 1 }])
      })
    })
  }

  test('writes that look like reads to nobody go to a lease, and are done once each', async ({ expect }) => {
    await scene(await sharedServer(kind), { driver, max: 2, setup: WRITERS }, async ({ db, count, root }) => {
      using readers = keepReading(db, 20)
      await Promise.all(
        Array.from({ length: 50 }, (_, n) => db.query('INSERT INTO log (n) VALUES (?)', [n], { prepare: n % 2 === 0 })),
      )
      await db.query('WITH x AS (SELECT 3 AS n) SELECT * FROM x, t WHERE id = 1 FOR UPDATE')
      await db.query('UPDATE log SET n = n + 1000')
      await readers.stop()
      expect(summary(readers.wrong)).toEqual({})
      expect(await count('log')).toBe(50)
      expect(await root('SELECT COUNT(DISTINCT n) AS n FROM {db}.log WHERE n >= 1000')).toEqual([{ n: 50 }])
      expect(lanes(db).reasons).toEqual({ 'not a read': 51, 'locking read': 1 })
    })
  })

  // ---- 3. a slow one among quick ones

  test('a read that is unknown, and slow, holds nobody up', async ({ expect }) => {
    await scene(await sharedServer(kind), { driver, max: 3, setup: NAPS }, async ({ db }) => {
      expect(await readAll(db, 50, 5, pointRead())).toEqual([])
      let isOver = false
      const slow = nap(db, 3_000).then(() => (isOver = true))
      slow.catch(() => {})
      expect(await readAll(db, 1_000, 50, pointRead())).toEqual([])
      expect(isOver).toBe(false)
      await slow
    })
  })

  test('what stands behind one that takes long against all expectation is moved, and each gets its own', async ({
    expect,
  }) => {
    await scene(await sharedServer(kind), { driver, max: 3, setup: NAPS }, async ({ db }) => {
      for (let n = 0; n < 20; n++) await nap(db, 0)
      let isOver = false
      const quick = (n: number): Promise<number> =>
        db.query('SELECT id, slept FROM naps WHERE id = ?', [n]).then(({ rows }) => rows[0].id)
      const before = Array.from({ length: 20 }, (_, n) => quick(n + 1))
      const slow = nap(db, 3_000).then(() => (isOver = true))
      slow.catch(() => {})
      const behind = Array.from({ length: 60 }, (_, n) => quick(n + 21))
      expect(await Promise.all([...before, ...behind])).toEqual(Array.from({ length: 80 }, (_, n) => n + 1))
      expect(isOver).toBe(false)
      expect(lanes(db).moved).toBeGreaterThan(0)
      await slow
      expect(lanes(db).reads.lane).toBe(20 + 81)
    })
  })

  test('one that waits for a locked table holds nobody up, known as quick or not', async ({ expect }) => {
    const setup = [...SETUP, 'CREATE TABLE {db}.u (id INT PRIMARY KEY)', 'INSERT INTO {db}.u VALUES (1), (2), (3)']
    await scene(await sharedServer(kind), { driver, max: 3, setup }, async ({ db, account }) => {
      for (const isKnown of [false, true]) {
        expect(await readAll(db, 50, 5, pointRead())).toEqual([])
        const holder = await stranger(account)
        try {
          await holder.query('LOCK TABLES u WRITE')
          let isOver = false
          const slow = db.query('SELECT id FROM u WHERE id = ?', [2]).then(({ rows }) => ((isOver = true), rows))
          expect(await readAll(db, 500, 50, pointRead()), `known: ${isKnown}`).toEqual([])
          expect(isOver, `known: ${isKnown}`).toBe(false)
          await holder.query('UNLOCK TABLES')
          expect(await slow).toEqual([{ id: 2 }])
        } finally {
          holder.destroy()
        }
        for (let n = 0; n < 40; n++) await db.query('SELECT id FROM u WHERE id = ?', [1])
      }
    })
  })

  test('many that wait for a locked table, of a form that was quick, leave a session to the others', async ({
    expect,
  }) => {
    const setup = [...SETUP, 'CREATE TABLE {db}.u (id INT PRIMARY KEY)', 'INSERT INTO {db}.u VALUES (1), (2), (3)']
    const server = await sharedServer(kind)
    await scene(server, { driver, max: 3, setup }, async ({ db, account }) => {
      const readU = (n: number): Promise<number> =>
        db.query('SELECT id FROM u WHERE id = ?', [(n % 3) + 1]).then(({ rows }) => rows[0].id)
      for (let n = 0; n < 20; n++) await readU(n)
      expect(await readAll(db, 50, 5, pointRead())).toEqual([])
      const holder = await stranger(account)
      try {
        await holder.query('LOCK TABLES u WRITE')
        let over = 0
        const stuck: Promise<number>[] = []
        for (let n = 0; n < 10; n++) {
          const each = readU(n).then((id) => (over++, id))
          each.catch(() => {})
          stuck.push(each)
          // Ten in one turn might be on three sessions before anything is known.
          if (n === 0) await untilRunning(server, account.user, 'FROM u')
          await sleep(n === 0 ? 150 : 10)
        }
        expect(await soon(readAll(db, 500, 50, pointRead()), 8_000)).toEqual([])
        expect(over).toBe(0)
        await holder.query('UNLOCK TABLES')
        expect(await Promise.all(stuck)).toEqual(stuck.map((_, n) => (n % 3) + 1))
      } finally {
        holder.destroy()
      }
    })
  })

  test('a result that takes long on the wire holds nobody up, the first time and later', async ({ expect }) => {
    const relay = { bytesPerSecond: 1_000_000 }
    await scene(await sharedServer(kind), { driver, max: 3, setup: SETUP, relay }, async ({ db }) => {
      expect(await readAll(db, 50, 5, pointRead())).toEqual([])
      for (let time = 1; time <= 2; time++) {
        let isOver = false
        const big = db.query("SELECT id, REPEAT('x', 20000) AS big FROM t ORDER BY id").then(({ rows }) => {
          isOver = true
          return rows
        })
        expect(await readAll(db, 300, 30, pointRead())).toEqual([])
        expect(isOver, `time ${time}`).toBe(false)
        const rows = await big
        expect(rows.map((row) => row.id)).toEqual(Array.from({ length: ROWS }, (_, n) => n + 1))
        expect(rows.every((row) => row.big.length === 20_000)).toBe(true)
      }
    })
  })

  test('a network whose delay changes makes no quick read a slow one: they do not go one by one', async ({
    expect,
  }) => {
    await scene(
      await sharedServer(kind),
      { driver, max: 1, setup: SETUP, relay: { delayMs: 1 } },
      async ({ db, relay }) => {
        let n = 0
        const jitter = setInterval(() => (relay.delayMs = 1 + ((n += 7) % 20)), 15)
        try {
          // One by one they would take half a minute.
          expect(summary(await soon(readAll(db, 2_000, 300, mixed), 15_000))).toEqual({})
        } finally {
          clearInterval(jitter)
          relay.delayMs = 0
        }
      },
    )
  })

  // ---- 4. the session's state

  test.for([1, 3])(
    'session state that is asked for through query() harms no reader (max %i)',
    async (max, { expect }) => {
      const setup = [
        ...SETUP,
        'CREATE TABLE {db}.u (id INT AUTO_INCREMENT PRIMARY KEY, n INT)',
        'INSERT INTO {db}.u VALUES (1, 1)',
      ]
      await scene(await sharedServer(kind), { driver, max, setup }, async ({ db, account, root }) => {
        const STATE = `SELECT DATABASE() AS d, @@session.sql_mode AS mode, @@autocommit AS auto, @@time_zone AS zone,
        @@character_set_results AS charset, @@session.sql_select_limit AS most, v, id FROM t WHERE id = ?`
        const [clean] = (await db.query(STATE, [1])).rows
        expect(clean).toMatchObject({ d: account.database, auto: 1, v: 'row 1' })
        let newest = 0
        const read: Read = async (pool, n) => {
          const id = (n % ROWS) + 1
          const seen = newest
          const { rows } = await pool.query(STATE, [id])
          const wanted = { ...clean, v: `row ${id}`, id }
          if (JSON.stringify(rows) !== JSON.stringify([wanted])) return `state: ${JSON.stringify(rows)}`
          // A transaction left open would show what was then.
          const { rows: fresh } = await pool.query('SELECT n FROM u WHERE id = 1')
          return fresh[0].n >= seen ? undefined : `stale: ${fresh[0].n} after ${seen}`
        }
        using readers = keepReading(db, 30, read)
        const HARM = [
          'SET @a = 7',
          "SET SESSION sql_mode = ''",
          'USE information_schema',
          `SELECT GET_LOCK('${account.user}', 0) AS got`,
          `DO GET_LOCK('${account.user}', 0)`,
          'CREATE TEMPORARY TABLE t (id INT, v INT)',
          'LOCK TABLES u READ',
          'LOCK TABLES u WRITE',
          'BEGIN',
          'START TRANSACTION READ ONLY',
          'START TRANSACTION WITH CONSISTENT SNAPSHOT',
          'SET TRANSACTION READ ONLY',
          'SET TRANSACTION ISOLATION LEVEL SERIALIZABLE',
          'SET SESSION TRANSACTION READ ONLY',
          'SET SESSION TRANSACTION READ WRITE',
          'SET autocommit = 0',
          "SET time_zone = '+05:30'",
          'SET sql_select_limit = 1',
          'SET NAMES latin1',
          'SELECT LAST_INSERT_ID(5) AS id',
          'SELECT SQL_CALC_FOUND_ROWS id FROM t LIMIT 1',
          'SELECT FOUND_ROWS() AS n',
          'SELECT 5 INTO @a',
          'SELECT @a := 6 AS a',
          '/*!40100 SET @a = 9 */',
          'HANDLER t OPEN',
          "PREPARE p FROM 'SELECT 1'",
          'SELECT id FROM u WHERE id = 1 FOR UPDATE',
          'SELECT id FROM u WHERE id = 1 LOCK IN SHARE MODE',
          'SAVEPOINT a',
        ]
        for (let round = 0; round < 2; round++) {
          for (const harm of HARM) {
            await Promise.all([db.query(harm), db.query(harm).catch(() => {})])
            const [{ affectedRows }, { rows }] = await Promise.all([
              db.query('UPDATE u SET n = n + 1 WHERE id = 1'),
              db.query('SELECT @a AS a'),
            ])
            newest++
            expect(affectedRows, harm).toBe(1)
            expect(rows, harm).toEqual([{ a: null }])
            // The session is made clean after its answer was given.
            await until(async () => {
              const [lock] = (await db.query('SELECT IS_USED_LOCK(?) AS l', [account.user])).rows
              expect(lock.l, harm).toBeNull()
            })
          }
        }
        await readers.stop()
        expect(readers.done).toBeGreaterThan(100)
        expect(summary(readers.wrong)).toEqual({})
        await until(async () =>
          expect(await root('SELECT IS_USED_LOCK(?) AS l', [account.user])).toEqual([{ l: null }]),
        )
      })
    },
  )

  test('LAST_INSERT_ID and FOUND_ROWS on a lease are not disturbed by readers', async ({ expect }) => {
    const setup = [...SETUP, 'CREATE TABLE {db}.u (id INT AUTO_INCREMENT PRIMARY KEY, n INT)']
    await scene(await sharedServer(kind), { driver, max: 2, setup }, async ({ db }) => {
      using readers = keepReading(db, 30)
      for (let n = 1; n <= 30; n++) {
        await db.use(async (lease) => {
          const { insertId } = await lease.query('INSERT INTO u (n) VALUES (?)', [n])
          const { rows } = await lease.query('SELECT LAST_INSERT_ID() AS id')
          expect(Number(rows[0].id)).toBe(Number(insertId))
          await lease.query('SELECT SQL_CALC_FOUND_ROWS id FROM t LIMIT 3')
          expect(Number((await lease.query('SELECT FOUND_ROWS() AS n')).rows[0].n)).toBe(ROWS)
        })
      }
      await readers.stop()
      expect(summary(readers.wrong)).toEqual({})
    })
  })

  // ---- 5. leases

  const BUSY: [number, string, number][] = [
    [1, 'at the server itself', 0],
    [2, 'at the server itself', 0],
    // Not in step: there is never a moment at which none of them is under way.
    [1, 'over a network', 3],
    [2, 'over a network', 3],
  ]
  test.for(BUSY)(
    'a hundred readers do not starve who needs a session of his own (max %i, %s)',
    async ([max, , delayMs], { expect }) => {
      const setup = [...SETUP, 'CREATE TABLE {db}.u (id INT AUTO_INCREMENT PRIMARY KEY, n INT)']
      const relay = delayMs > 0 ? { relay: { delayMs } } : {}
      await scene(await sharedServer(kind), { driver, max, setup, ...relay }, async ({ db, count }) => {
        const outOfStep: Read = async (pool, n) => {
          if (delayMs > 0) await sleep(n % 11)
          return pointRead()(pool, n)
        }
        using readers = keepReading(db, 100, outOfStep)
        await until(() => readers.done > 200)
        const waits: number[] = []
        for (let n = 0; n < 50; n++) {
          const before = readers.done
          const began = performance.now()
          if (n % 3 === 0) await db.use(async (lease) => void (await lease.query('INSERT INTO u (n) VALUES (?)', [n])))
          else if (n % 3 === 1) await db.query('INSERT INTO u (n) VALUES (?)', [n], { prepare: n % 2 === 0 })
          else
            await db.transaction(async (tx) => {
              await tx.query('INSERT INTO u (n) VALUES (?)', [n])
              await tx.query('UPDATE u SET n = n + 1000 WHERE n = ?', [n])
            })
          waits.push(performance.now() - began)
          await until(() => readers.done > before + 20, 5_000)
        }
        await readers.stop()
        expect(summary(readers.wrong)).toEqual({})
        expect(Math.max(...waits)).toBeLessThan(2_500)
        expect(await count('u')).toBe(50)
        expect(total(db).opened).toBeLessThanOrEqual(2 * max)
        expect(lanes(db).bounces).toEqual([])
      })
    },
  )

  test('what was a lane takes writes of every kind', async ({ expect }) => {
    const setup = [...SETUP, 'CREATE TABLE {db}.u (id INT AUTO_INCREMENT PRIMARY KEY, n INT)']
    await scene(await sharedServer(kind), { driver, max: 1, setup }, async ({ db, count }) => {
      const toLane = async (): Promise<void> => {
        expect(await readAll(db, 50, 25, pointRead())).toEqual([])
        expect(await readAll(db, 10, 5, pointRead({ prepare: true }))).toEqual([])
      }
      const WRITES: ((n: number) => Promise<unknown>)[] = [
        (n) => db.query('INSERT INTO u (n) VALUES (?)', [n]),
        (n) => db.query('INSERT INTO u (n) VALUES (?)', [n], { prepare: true }),
        (n) => db.use((lease) => lease.query('INSERT INTO u (n) VALUES (?)', [n], { prepare: true })),
        (n) => db.transaction((tx) => tx.query('INSERT INTO u (n) VALUES (?)', [n])),
        (n) => db.transaction((tx) => tx.query('INSERT INTO u (n) VALUES (?)', [n], { prepare: true })),
        async (n) => {
          await db.query(`CREATE TABLE made_${n} (id INT)`)
          await db.query('INSERT INTO u (n) VALUES (?)', [n])
        },
        (n) =>
          db.use(async (lease) => {
            await lease.query(`CREATE TABLE made_${n} (id INT)`)
            await lease.query('START TRANSACTION')
            await lease.query('INSERT INTO u (n) VALUES (?)', [n])
            await lease.query(`ALTER TABLE made_${n} ADD a INT`)
            await lease.query('COMMIT')
          }),
        (n) =>
          db.use(async (lease) => {
            await lease.query('SET @a = 1')
            await lease.query('INSERT INTO u (n) VALUES (?)', [n])
          }),
        async (n) => {
          for await (const _ of db.stream('SELECT id FROM t')) continue
          await db.query('INSERT INTO u (n) VALUES (?)', [n])
        },
      ]
      let n = 0
      for (let round = 0; round < 2; round++)
        for (const write of WRITES) {
          await toLane()
          await write(++n)
          expect(await count('u', `n = ${n}`)).toBe(1)
          const { rows } = await db.query(`SELECT ${onlyRead} AS only`)
          expect(Number(rows[0].only)).toBe(0)
        }
      expect(total(db).opened).toBe(1)
      expect(lanes(db).bounces).toEqual([])
    })
  })

  test('a lease that is held serves no read of others', async ({ expect }) => {
    await scene(await sharedServer(kind), { driver, max: 2, setup: SETUP }, async ({ db }) => {
      expect(await readAll(db, 200, 50, pointRead())).toEqual([])
      const lease = await db.acquire()
      const selects = async (): Promise<number> =>
        Number((await lease.query("SHOW SESSION STATUS LIKE 'Com_select'")).rows[0].Value)
      const before = await selects()
      expect(await readAll(db, 500, 50, pointRead())).toEqual([])
      expect(await selects()).toBe(before)
      await lease.query('START TRANSACTION')
      await lease.query("UPDATE t SET v = 'changed' WHERE id = 1")
      expect((await db.query('SELECT v FROM t WHERE id = 1')).rows).toEqual([{ v: 'row 1' }])
      const other = await db.acquire()
      await holdfastError(db.query('SELECT v FROM t WHERE id = 2', [], { timeoutMs: 300 }), 'POOL_ACQUIRE_TIMEOUT')
      other.release()
      await lease.query('ROLLBACK')
      lease.release()
      expect(await readAll(db, 50, 5, pointRead())).toEqual([])
    })
  })
})

describe.each(PAIRS)('lanes in trouble on $kind with $driver', { concurrent: true }, ({ kind, driver }) => {
  const onlyRead = kind.startsWith('mysql') ? '@@session.transaction_read_only' : '@@session.tx_read_only'
  const either: Read = (db, n) => pointRead({ prepare: n % 2 === 0 })(db, n)

  /** Settings of its own, and its own end. */
  async function withServer(act: (server: TestServer) => Promise<void>): Promise<void> {
    await using server = await startServer(kind)
    await server.set('innodb_flush_log_at_trx_commit', 1) // what a test has set up outlives a kill -9
    await act(server)
  }

  // ---- 6. sessions that are lost

  test('sessions that are killed under hundreds of reads fail none of them', async ({ expect }) => {
    const server = await sharedServer(kind)
    await scene(server, { driver, max: 3, setup: SETUP }, async ({ db, account }) => {
      using readers = keepReading(db, 200, either)
      for (let round = 0; round < 15; round++) {
        const before = readers.done
        await until(() => readers.done > before + 300, 10_000)
        for (const { id } of await server.sessions(account.user)) await server.kill(id).catch(() => {})
      }
      await readers.stop()
      expect(summary(readers.wrong)).toEqual({})
      expect(lanes(db).rerun).toBeGreaterThan(0)
      expect(total(db).opened).toBeGreaterThan(10)
    })
  })

  for (const how of ['reset', 'cut'] as const)
    test(`connections that the network ends (${how}) under hundreds of reads fail none of them`, async ({ expect }) => {
      const relay = { delayMs: 1 }
      await scene(await sharedServer(kind), { driver, max: 3, setup: SETUP, relay }, async ({ db, relay: net }) => {
        using readers = keepReading(db, 200, either)
        for (let round = 0; round < 10; round++) {
          const before = readers.done
          await until(() => readers.done > before + 300, 10_000)
          net[how]()
        }
        await readers.stop()
        expect(summary(readers.wrong)).toEqual({})
        expect(lanes(db).rerun).toBeGreaterThan(0)
      })
    })

  test('a connection that ends in the middle of a reply fails no read', async ({ expect }) => {
    // Some of the rows have come: they are thrown away, and all of them come again.
    const relay = { bytesPerSecond: 3_000_000 }
    await scene(await sharedServer(kind), { driver, max: 2, setup: SETUP, relay }, async ({ db, relay: net }) => {
      const sql = "SELECT id, REPEAT('x', 5000) AS big FROM t ORDER BY id"
      for (const how of ['reset', 'cut'] as const) {
        const answers = Promise.all([1, 2, 3].map(() => db.query(sql)))
        const before = net.bytesDown
        await until(() => net.bytesDown > before + 200_000)
        net[how]()
        for (const { rows } of await answers) {
          expect(rows.map((row) => row.id)).toEqual(Array.from({ length: ROWS }, (_, n) => n + 1))
          expect(rows.every((row) => row.big.length === 5_000)).toBe(true)
        }
      }
    })
  })

  test('a server that is killed and started again fails no read', async ({ expect }) => {
    await withServer(async (server) => {
      const options = { driver, max: 3, setup: SETUP, acquireTimeoutMs: 30_000 }
      await scene(server, options, async ({ db }) => {
        using readers = keepReading(db, 100, either)
        await until(() => readers.done > 500)
        await server.stop('SIGKILL')
        await sleep(300)
        await server.start()
        const before = readers.done
        await until(() => readers.done > before + 500, 15_000)
        await readers.stop()
        expect(summary(readers.wrong)).toEqual({})
      })
    })
  })

  test('KILL QUERY by a stranger that hits reads by chance fails none of them', async ({ expect }) => {
    const server = await sharedServer(kind)
    await scene(server, { driver, max: 3, setup: SETUP }, async ({ db, account }) => {
      using readers = keepReading(db, 50, either)
      await until(() => readers.done > 100)
      for (let round = 0; round < 40; round++)
        for (const { id } of await server.sessions(account.user))
          await server.query('KILL QUERY ?', [id]).catch(() => {})
      await readers.stop()
      expect(summary(readers.wrong)).toEqual({})
    })
  })

  test('KILL QUERY of a read that runs for long ends it, with the error of the server, and no other', async ({
    expect,
  }) => {
    const setup = [...SETUP, 'CREATE TABLE {db}.u (id INT PRIMARY KEY)', 'INSERT INTO {db}.u VALUES (1), (2), (3)']
    const server = await sharedServer(kind)
    await scene(server, { driver, max: 3, setup }, async ({ db, account }) => {
      using readers = keepReading(db, 50, either)
      await until(() => readers.done > 100)
      const holder = await stranger(account)
      try {
        await holder.query('LOCK TABLES u WRITE')
        for (const prepare of [false, true]) {
          const waiting = failure(db.query('SELECT id FROM u WHERE id = ?', [2], { prepare }))
          const id = await untilRunning(server, account.user, 'FROM u')
          await sleep(100)
          await server.query('KILL QUERY ?', [id])
          expect(await soon(waiting, 3_000)).toMatchObject({ errno: 1317, sqlState: '70100' })
        }
      } finally {
        holder.destroy()
      }
      expect((await soon(db.query('SELECT id FROM u WHERE id = ?', [2]))).rows).toEqual([{ id: 2 }])
      await readers.stop()
      expect(summary(readers.wrong)).toEqual({})
    })
  })

  test('a read that ends every session it runs on fails at last, and takes no other with it', async ({ expect }) => {
    const server = await sharedServer(kind)
    await scene(server, { driver, max: 3, setup: NAPS }, async ({ db, account }) => {
      using readers = keepReading(db, 30)
      await until(() => readers.done > 100)
      const doomed = failure(soon(nap(db, 30_000), 20_000))
      let isOver = false
      void doomed.then(() => (isOver = true))
      let kills = 0
      while (!isOver) {
        for (const row of await server.sessions(account.user))
          if (row.info?.includes('naps'))
            await server.kill(row.id).then(
              () => kills++,
              () => {},
            )
        await sleep(10)
      }
      expect(await doomed).toMatchObject({ code: 'SESSION_LOST' })
      expect(kills).toBeLessThan(40)
      await readers.stop()
      expect(summary(readers.wrong)).toEqual({})
    })
  })

  // ---- 7. silence

  test('a server that stands still for 3 s fails nobody', async ({ expect }) => {
    await withServer(async (server) => {
      await scene(server, { driver, max: 3, setup: SETUP }, async ({ db }) => {
        using readers = keepReading(db, 50, either)
        await until(() => readers.done > 200)
        await server.freeze()
        await sleep(3_000)
        server.thaw()
        const before = readers.done
        await until(() => readers.done > before + 200, 10_000)
        await readers.stop()
        expect(summary(readers.wrong)).toEqual({})
      })
    })
  })

  for (const max of [1, 3])
    for (const what of ['nothing comes through', 'no reply comes through'])
      test(`one connection on which ${what} holds its reads up, and fails none (max ${max})`, async ({ expect }) => {
        let last: Link | undefined
        const relay = { onRequest: (_: Buffer, link: Link): undefined => void (last = link) }
        await scene(await sharedServer(kind), { driver, max, setup: SETUP, relay }, async ({ db, relay: net }) => {
          using readers = keepReading(db, 60, either)
          for (let time = 0; time < 2; time++) {
            const before = readers.done
            await until(() => readers.done > before + 200, 15_000)
            if (what.startsWith('nothing')) last?.stall()
            else last?.holdReplies()
          }
          await until(() => lanes(db).rerun + lanes(db).moved > 0, 15_000)
          await soon(readers.stop(), 15_000)
          expect(summary(readers.wrong)).toEqual({})
          net.resume()
        })
      })

  // ---- 8. time limits and signals

  test('a read that runs for too long is ended on the server, and disturbs no other', async ({ expect }) => {
    const server = await sharedServer(kind)
    await scene(server, { driver, max: 2, setup: NAPS }, async ({ db, account }) => {
      using readers = keepReading(db, 30, either)
      await until(() => readers.done > 100)
      for (const how of ['timeoutMs', 'signal'] as const) {
        const before = readers.done
        const signal = AbortSignal.timeout(400)
        const options = how === 'signal' ? { signal } : { timeoutMs: 400 }
        const code = how === 'signal' ? 'ABORTED' : 'QUERY_TIMEOUT'
        const error = await holdfastError(soon(nap(db, 30_000, options), 4_000), code)
        expect(error.effect).toBe('none')
        await untilNotRunning(server, account.user, 'naps', 8_000)
        await until(() => readers.done > before + 100)
      }
      await readers.stop()
      expect(summary(readers.wrong)).toEqual({})
      await until(() => db.stats().ghost === 0)
    })
  })

  test('a read with an emoji in it that runs for too long is ended on the server', async ({ expect }) => {
    // While such a text runs, MySQL gives nobody information_schema.PROCESSLIST (3854).
    await withServer(async (server) => {
      await scene(server, { driver, max: 2, setup: NAPS }, async ({ db }) => {
        expect(await readAll(db, 50, 5, pointRead())).toEqual([])
        const running = async (): Promise<boolean> =>
          (await server.query<{ Info: string | null }>('SHOW FULL PROCESSLIST')).some((row) =>
            row.Info?.includes('naps'),
          )
        const sql = "SELECT id, slept, '🐬' AS dolphin FROM naps WHERE id = ?"
        const late = holdfastError(db.query(sql, [30_000 + ROWS], { timeoutMs: 500 }), 'QUERY_TIMEOUT')
        await until(running)
        await late
        await until(async () => !(await running()), 8_000)
        await until(() => db.stats().ghost === 0)
      })
    })
  })

  test('one that is known to be quick, and takes too long, is ended too; those behind it have their rows', async ({
    expect,
  }) => {
    const server = await sharedServer(kind)
    for (const max of [1, 3])
      await scene(server, { driver, max, setup: NAPS }, async ({ db, account }) => {
        for (let n = 0; n < 20; n++) await nap(db, 0)
        const late = holdfastError(nap(db, 30_000, { timeoutMs: 300 }), 'QUERY_TIMEOUT')
        const behind = Array.from({ length: 100 }, (_, n) => pointRead()(db, n))
        const alike = Array.from({ length: 20 }, () => nap(db, 0))
        expect((await soon(late)).effect).toBe('none')
        expect(summary((await soon(Promise.all(behind), 8_000)).map(String))).toEqual({ undefined: 100 })
        expect(await soon(Promise.all(alike), 8_000)).toEqual(alike.map(() => 0))
        await untilNotRunning(server, account.user, 'naps', 8_000)
      })
  })

  test('one that waits for its turn in vain was not executed, and disturbs no other', async ({ expect }) => {
    const server = await sharedServer(kind)
    await scene(server, { driver, max: 1, setup: NAPS }, async ({ db, account }) => {
      expect(await readAll(db, 50, 5, pointRead())).toEqual([])
      const running = nap(db, 1_000)
      await untilRunning(server, account.user, 'naps')
      const leaving = new AbortController()
      const outcomes = await crowd(60, async (n) => {
        const options = n % 3 === 0 ? { timeoutMs: 200 } : n % 3 === 1 ? { signal: leaving.signal } : {}
        if (n === 59) setTimeout(() => leaving.abort(), 200)
        const wrong = await pointRead(options)(db, n)
        if (wrong !== undefined) throw new Error(wrong)
      })
      expect(tally(outcomes)).toEqual({ ok: 20, POOL_ACQUIRE_TIMEOUT: 20, ABORTED: 20 })
      expect(outcomes.every(({ error }) => error === undefined || error.effect === 'none')).toBe(true)
      expect(await running).toBe(1_000)
      expect(total(db).opened).toBe(1)
    })
  })

  test('one that waits for the first session in vain disturbs none of those who have more time', async ({ expect }) => {
    await scene(await sharedServer(kind), { driver, max: 2, setup: SETUP, relay: {} }, async ({ db, relay }) => {
      relay.greetNever()
      const patient = readAll(db, 50, 50, pointRead())
      const signal = AbortSignal.timeout(300)
      const outcomes = await crowd(40, (n) => pointRead(n % 2 === 0 ? { timeoutMs: 300 } : { signal })(db, n))
      expect(tally(outcomes)).toEqual({ POOL_ACQUIRE_TIMEOUT: 20, ABORTED: 20 })
      relay.resume()
      expect(await patient).toEqual([])
    })
  })

  test('reads that are given up at any moment disturb no other', async ({ expect }) => {
    const server = await sharedServer(kind)
    await scene(server, { driver, max: 3, setup: NAPS, relay: { delayMs: 2 } }, async ({ db, account }) => {
      using readers = keepReading(db, 50, either)
      await until(() => readers.done > 100)
      const outcomes = await crowd(400, async (n) => {
        await sleep(n * 2)
        const ms = (n * 7) % 23
        const prepare = n % 3 === 0
        const options = n % 2 === 0 ? { timeoutMs: ms + 1, prepare } : { signal: AbortSignal.timeout(ms), prepare }
        if (n % 10 === 0) await nap(db, 100, options)
        else if ((await pointRead(options)(db, n)) !== undefined) throw new Error('not the row of his own')
      })
      await readers.stop()
      expect(summary(readers.wrong)).toEqual({})
      const { ok = 0, QUERY_TIMEOUT = 0, POOL_ACQUIRE_TIMEOUT = 0, ABORTED = 0, ...others } = tally(outcomes)
      expect(others).toEqual({})
      expect(ok + QUERY_TIMEOUT + POOL_ACQUIRE_TIMEOUT + ABORTED).toBe(400)
      expect(Math.min(QUERY_TIMEOUT + POOL_ACQUIRE_TIMEOUT, ABORTED)).toBeGreaterThan(0)
      expect(new Set(outcomes.map(({ error }) => error?.effect ?? 'none'))).toEqual(new Set(['none']))
      await untilNotRunning(server, account.user, 'naps', 8_000)
    })
  })

  // ---- 9. lanes that are off

  /** It does all that a pool does, without lanes. */
  async function works(db: Pool): Promise<void> {
    await db.query('CREATE TABLE u (n INT)')
    const before = lanes(db).reads.lease
    const wrong = (
      await Promise.all([
        readAll(db, 100, 20, either),
        readAll(db, 5, 5, async () => void (await db.query('INSERT INTO u VALUES (1)'))),
        readAll(db, 5, 5, async () => void (await db.transaction((tx) => tx.query('INSERT INTO u VALUES (1)')))),
      ])
    ).flat()
    if (wrong.length > 0) throw new Error(JSON.stringify(summary(wrong)))
    const { rows } = await db.query('SELECT COUNT(*) AS n FROM u')
    if (Number(rows[0].n) !== 10) throw new Error(`${rows[0].n} instead of 10`)
    const { lane, lease } = lanes(db).reads
    if (lane !== 0 || lease !== before + 101) throw new Error(`${lane} on lanes, ${lease - before} on leases`)
  }

  const OFF: [string, PoolOptions, RegExp][] = [
    ["lanes: 'off'", { lanes: 'off' }, /^lanes: 'off'$/],
    ['compression', { driverOptions: { compress: true } }, /compress/],
    ['autocommit = 0', { sessionInit: 'SET autocommit = 0' }, /autocommit/],
  ]
  if (driver === 'mariadb') {
    OFF.push(['pipelining: false', { driverOptions: { pipelining: false } }, /pipelining/])
    OFF.push(['local files', { driverOptions: { permitLocalInfile: true } }, /permitLocalInfile/])
  }
  test.for(OFF)(
    'with %s lanes are off, the reason is told, and everything works',
    async ([what, options, reason], { expect }) => {
      await scene(await sharedServer(kind), { ...options, driver, max: 3, setup: SETUP }, async ({ db }) => {
        if (what === 'autocommit = 0') {
          expect(await readAll(db, 100, 20, either)).toEqual([])
          await db.query('CREATE TABLE u (n INT)')
          await db.transaction((tx) => tx.query('INSERT INTO u VALUES (1)'))
          expect((await db.query('SELECT n FROM u')).rows).toEqual([{ n: 1 }])
          expect(lanes(db).reads.lane).toBe(0)
        } else await works(db)
        expect(lanes(db)).toMatchObject({ on: false, reason: expect.stringMatching(reason), depth: 0, bounces: [] })
      })
    },
  )

  test('a cold pool that finds out that lanes are off serves the crowd that waits, and counts it', async ({
    expect,
  }) => {
    const driverOptions = { compress: true }
    await scene(await sharedServer(kind), { driver, driverOptions, max: 2, setup: SETUP }, async ({ db }) => {
      expect(await readAll(db, 200, 200, either)).toEqual([])
      expect(lanes(db)).toMatchObject({ on: false, reads: { lane: 0, lease: 200 } })
    })
  })

  test('behind a proxy that swallows READ ONLY, lanes are off, and nothing is written twice', async ({ expect }) => {
    const READ_ONLY = 'SET SESSION TRANSACTION READ ONLY'
    let swallowed = 0
    const onRequest = (chunk: Buffer): undefined => {
      for (let at = chunk.indexOf(READ_ONLY); at >= 0; at = chunk.indexOf(READ_ONLY)) {
        chunk.write('DO 0'.padEnd(READ_ONLY.length), at)
        swallowed++
      }
    }
    const setup = [
      ...SETUP,
      'CREATE TABLE {db}.log (n INT)',
      `CREATE FUNCTION {db}.note(n INT) RETURNS INT MODIFIES SQL DATA
       BEGIN INSERT INTO {db}.log (n) VALUES (n); RETURN n * 2; END`,
      'CREATE VIEW {db}.noting AS SELECT id, {db}.note(id) AS noted FROM {db}.t',
    ]
    await scene(await sharedServer(kind), { driver, max: 3, setup, relay: { onRequest } }, async ({ db, count }) => {
      expect((await db.query('SELECT noted FROM noting WHERE id = 4')).rows).toEqual([{ noted: 8 }])
      expect(await count('log')).toBe(1)
      await works(db)
      expect(swallowed).toBeGreaterThan(0)
      expect(lanes(db)).toMatchObject({ on: false, reason: expect.stringMatching(/does not honour READ ONLY/) })
    })
  })

  test('why a statement got a lease is counted', async ({ expect }) => {
    await scene(await sharedServer(kind), { driver, max: 2, setup: SETUP }, async ({ db }) => {
      await db.query('SELECT v FROM t WHERE id = 1')
      await db.query('SELECT v FROM t WHERE id = 1', [], { lane: false })
      await db.query('SELECT v FROM t WHERE id = 1', [], { lane: false })
      await db.query('SELECT @a AS a')
      await db.query('SELECT v FROM t WHERE id = 1 FOR UPDATE')
      await db.query('SELECT v FROM t WHERE id = 1 LOCK IN SHARE MODE')
      await db.query("UPDATE t SET v = 'x' WHERE id = 1")
      await db.query('SELECT SLEEP(0) AS s')
      await db.query('SELECT CONNECTION_ID() AS id')
      await db.query('SELECT v FROM t WHERE id = 1')
      expect(lanes(db)).toMatchObject({
        on: true,
        reads: { lane: 2, lease: 7 },
        reasons: {
          'lane: false': 2,
          'user variable': 1,
          'locking read': 2,
          'not a read': 1,
          'function that waits': 1,
          'function of the session': 1,
        },
      })
      expect(lanes(db).reason).toBeUndefined()
    })
  })

  // ---- 10. the end, and the limits of the queue

  test('drain lets the reads that are under way finish, and refuses those that wait', async ({ expect }) => {
    const server = await sharedServer(kind)
    await scene(server, { driver, max: 1, setup: NAPS }, async ({ db, account }) => {
      expect(await readAll(db, 50, 5, pointRead())).toEqual([])
      const running = nap(db, 1_000)
      await untilRunning(server, account.user, 'naps')
      const waiting = crowd(30, (n) => either(db, n))
      expect(db.stats().waiting).toBe(30)
      const drained = db.drain({ timeoutMs: 8_000 })
      expect(tally(await soon(waiting, 500))).toEqual({ POOL_CLOSED: 30 })
      expect(await running).toBe(1_000)
      await drained
      expect(db.stats()).toMatchObject({ held: 0, waiting: 0, lanes: { depth: 0 } })
      await holdfastError(db.query('SELECT 1'), 'POOL_CLOSED')
    })
  })

  test('drain in the midst of a crowd: each read has its row, or is refused', async ({ expect }) => {
    await scene(await sharedServer(kind), { driver, max: 2, setup: SETUP, relay: { delayMs: 5 } }, async ({ db }) => {
      expect(await readAll(db, 50, 5, either)).toEqual([])
      const outcomes = crowd(2_000, async (n) => {
        if ((await either(db, n)) !== undefined) throw new Error('not the row of his own')
      })
      expect(lanes(db).depth).toBeGreaterThan(0)
      await soon(db.drain({ timeoutMs: 8_000 }), 8_000)
      const { ok = 0, POOL_CLOSED = 0, ...others } = tally(await soon(outcomes, 500))
      expect(others).toEqual({})
      expect(ok).toBeGreaterThan(0)
      expect(ok + POOL_CLOSED).toBe(2_000)
    })
  })

  test('reads that wait count for queueLimit', async ({ expect }) => {
    const server = await sharedServer(kind)
    await scene(server, { driver, max: 1, queueLimit: 10, setup: NAPS }, async ({ db, account }) => {
      expect(await readAll(db, 20, 5, pointRead())).toEqual([])
      const lease = await db.acquire()
      const stuck = crowd(25, (n) => pointRead()(db, n))
      expect(db.stats().waiting).toBe(10)
      lease.release()
      const outcomes = await stuck
      expect(tally(outcomes)).toEqual({ ok: 10, POOL_QUEUE_FULL: 15 })
      expect(outcomes.findIndex(({ error }) => error !== undefined)).toBe(10)
      // While lanes are at work a long line is a short wait: more may stand in it, but not any number.
      const running = nap(db, 1_000)
      await untilRunning(server, account.user, 'naps')
      const { ok = 0, POOL_QUEUE_FULL = 0, ...others } = tally(await crowd(500, (n) => pointRead()(db, n)))
      expect(others).toEqual({})
      expect(ok).toBeGreaterThanOrEqual(10)
      expect(POOL_QUEUE_FULL).toBeGreaterThan(0)
      await running
    })
  })

  test('reads wait for a server that takes no connection, and no longer than they may', async ({ expect }) => {
    const options = { driver, max: 3, acquireTimeoutMs: 1_500, setup: SETUP, relay: {} }
    await scene(await sharedServer(kind), options, async ({ db, relay }) => {
      await relay.refuse()
      const outcomes = await crowd(50, (n) => either(db, n))
      expect(tally(outcomes)).toEqual({ POOL_ACQUIRE_TIMEOUT: 50 })
      expect(troubles(outcomes)[0]).toMatch(/ECONNREFUSED/)
      for (const { ms } of outcomes) {
        expect(ms).toBeGreaterThan(1_400)
        expect(ms).toBeLessThan(4_000)
      }
      await relay.accept()
      await until(() => db.query('SELECT 1'), 5_000)
      expect(await readAll(db, 200, 20, either)).toEqual([])
      // Those that were there are lost, and no other is to be had.
      await relay.refuse()
      relay.reset()
      expect(tally(await crowd(50, (n) => either(db, n)))).toEqual({ POOL_ACQUIRE_TIMEOUT: 50 })
      await relay.accept()
      await until(() => db.query('SELECT 1'), 5_000)
    })
  })

  // ---- 11. READ ONLY already

  test('who is READ ONLY by his own wish has lanes, stays so, and hears of it when he writes', async ({ expect }) => {
    const sessionInit = 'SET SESSION TRANSACTION READ ONLY'
    await scene(await sharedServer(kind), { driver, max: 2, sessionInit, setup: SETUP }, async ({ db, count }) => {
      for (let round = 0; round < 3; round++) {
        expect(await readAll(db, 100, 20, either)).toEqual([])
        const write = "UPDATE t SET v = 'x' WHERE id = 1"
        expect(await failure(db.query(write))).toMatchObject({ errno: 1792 })
        expect(await failure(db.use((lease) => lease.query(write)))).toMatchObject({ errno: 1792 })
        expect(await failure(db.transaction((tx) => tx.query(write)))).toMatchObject({ errno: 1792 })
        expect(Number((await db.query(`SELECT ${onlyRead} AS only`)).rows[0].only)).toBe(1)
        await db.query('SET @dirty = 1')
      }
      expect(await count('t', "v = 'x'")).toBe(0)
      expect(lanes(db)).toMatchObject({ on: true, reads: { lane: 300 }, bounces: [] })
    })
  })

  test('on a server that takes no writes there are lanes, and writes fail as they do', async ({ expect }) => {
    await withServer(async (server) => {
      await scene(server, { driver, max: 2, setup: SETUP }, async ({ db }) => {
        await server.set('read_only', 1)
        for (let round = 0; round < 3; round++) {
          expect(await readAll(db, 100, 20, either)).toEqual([])
          const write = "UPDATE t SET v = 'x' WHERE id = 100"
          expect(await failure(db.query(write))).toMatchObject({ errno: 1290 })
          expect(await failure(db.transaction((tx) => tx.query(write)))).toMatchObject({ errno: 1290 })
        }
        expect(lanes(db)).toMatchObject({ on: true, reads: { lane: 300 } })
        await server.set('read_only', 0)
        await db.query("UPDATE t SET v = 'row 100' WHERE id = 100")
        expect(await readAll(db, 100, 20, either)).toEqual([])
      })
    })
  })

  test('a session that its sessionInit makes READ WRITE is READ ONLY as a lane', async ({ expect }) => {
    await withServer(async (server) => {
      await server.query('SET GLOBAL TRANSACTION READ ONLY')
      await server.query('SET SESSION TRANSACTION READ WRITE') // root's own, for the setup
      const setup = [
        ...SETUP,
        'CREATE TABLE {db}.log (n INT)',
        `CREATE FUNCTION {db}.note(n INT) RETURNS INT MODIFIES SQL DATA
         BEGIN INSERT INTO {db}.log (n) VALUES (n); RETURN n * 2; END`,
        'CREATE VIEW {db}.noting AS SELECT id, {db}.note(id) AS noted FROM {db}.t',
      ]
      await scene(server, { driver, max: 2, setup }, async ({ db, url, count }) => {
        expect(await readAll(db, 100, 20, either)).toEqual([])
        expect(await failure(db.query("UPDATE t SET v = 'x'"))).toMatchObject({ errno: 1792 })
        expect(await failure(db.query('SELECT noted FROM noting WHERE id = 2'))).toMatchObject({ errno: 1792 })
        const writing = openPool(url, driver, { max: 2, sessionInit: 'SET SESSION TRANSACTION READ WRITE' })
        expect(await readAll(writing, 100, 20, either)).toEqual([])
        expect((await writing.query('SELECT noted FROM noting WHERE id = 3')).rows).toEqual([{ noted: 6 }])
        expect(lanes(writing)).toMatchObject({ on: true, bounces: [{ count: 1 }] })
        expect(await count('log')).toBe(1)
        await writing.query("UPDATE t SET v = 'row 1' WHERE id = 1")
        await writing.drain()
      })
    })
  })

  // ---- 13. the process's end

  const PROGRAM = (body: string): string => `
    import { createPool } from './dist/index.js'
    const db = createPool(JSON.parse(process.argv[1]))
    let doneAt = performance.now()
    process.on('exit', () => console.log('exit after', Math.round(performance.now() - doneAt)))
    ${body}
    doneAt = performance.now()
  `
  const ENDS: [string, string][] = [
    ['a crowd of reads', `await Promise.all(Array.from({ length: 500 }, (_, n) => db.query('SELECT ? AS n', [n])))`],
    [
      'reads, some of which failed, timed out or were aborted',
      `const options = [{}, { timeoutMs: 50 }, { signal: AbortSignal.timeout(50) }, { prepare: true }]
       await Promise.allSettled(Array.from({ length: 80 }, (_, n) =>
         db.query(n % 3 ? 'SELECT id, slept FROM naps WHERE id < 20' : 'SELECT nothing', [], options[n % 4])))
       await db.query('SELECT id, slept FROM naps WHERE id = 30100', [], { timeoutMs: 200 }).catch(() => {})`,
    ],
    ['reads and writes', `for (let n = 0; n < 20; n++) { await db.query('SELECT ' + n); await db.query('DO ' + n) }`],
  ]
  test.for(ENDS)('after %s the process ends by itself', async ([, body], { expect }) => {
    const server = await sharedServer(kind)
    const account = await server.createAccount()
    for (const sql of NAPS) await server.query(sql.replaceAll('{db}', `\`${account.database}\``))
    const options = { ...optionsFor(server, account, driver), max: 3 }
    await using program = startScript(PROGRAM(body), { args: [JSON.stringify(options)] })
    const exited = await Promise.race([program.exited, sleep(20_000)])
    expect(exited, program.output).toEqual({ code: 0, signal: null })
    const [, ms] = /^exit after (\d+)\n$/.exec(program.output) ?? []
    expect(Number(ms), program.output).toBeLessThan(3_000)
    await server.untilNoSessions(account.user)
  })

  test('a read under way, and one that waits, keep the process alive until they are answered', async ({ expect }) => {
    const server = await sharedServer(kind)
    const account = await server.createAccount()
    for (const sql of NAPS) await server.query(sql.replaceAll('{db}', `\`${account.database}\``))
    const body = `
      for (const id of [1100, 1, 2]) void db.query('SELECT id, slept FROM naps WHERE id = ?', [id])
        .then(({ rows }) => console.log('row', rows[0].id))`
    const options = { ...optionsFor(server, account, driver), max: 1 }
    await using program = startScript(PROGRAM(body), { args: [JSON.stringify(options)] })
    expect(await Promise.race([program.exited, sleep(20_000)]), program.output).toEqual({ code: 0, signal: null })
    expect(program.output.match(/row \d+/g)?.toSorted()).toEqual(['row 1', 'row 1100', 'row 2'])
    await server.untilNoSessions(account.user)
  })

  // ---- 14. other ways to the server

  const crossed = async (db: Pool): Promise<string[]> => {
    const wrong = await readAll(db, 2_000, 100, mixed)
    await db.query('CREATE TABLE u (n INT)')
    using readers = keepReading(db, 50, either)
    for (let n = 0; n < 20; n++) await db.query('INSERT INTO u VALUES (?)', [n])
    await readers.stop()
    return [...wrong, ...readers.wrong]
  }

  test('over TLS lanes are the same', async ({ expect }) => {
    await using server = await startServer(kind, { tls: true })
    const options = { driver, max: 2, setup: SETUP, host: 'localhost', ssl: { ca: server.ca } }
    await scene(server, options, async ({ db, account }) => {
      const [row] = await db.use(async (lease) => (await lease.query("SHOW STATUS LIKE 'Ssl_cipher'")).rows)
      expect(row.Value).not.toBe('')
      expect(summary(await crossed(db))).toEqual({})
      for (const { id } of await server.sessions(account.user)) await server.kill(id).catch(() => {})
      expect(summary(await readAll(db, 500, 50, either))).toEqual({})
      expect(lanes(db)).toMatchObject({ on: true, bounces: [] })
    })
  })

  test('over a unix socket lanes are the same', async ({ expect }) => {
    const server = await sharedServer(kind)
    const socketPath = server.socketPath
    await scene(server, { driver, max: 2, setup: SETUP, socketPath }, async ({ db }) => {
      expect(summary(await crossed(db))).toEqual({})
      expect(lanes(db)).toMatchObject({ on: true, bounces: [] })
      expect(lanes(db).reads.lane).toBeGreaterThan(2_000)
    })
  })

  test('two pools of one account, and a short list of prepared statements, do no harm to reads', async ({ expect }) => {
    const server = await sharedServer(kind)
    const driverOptions = driver === 'mysql2' ? { maxPreparedStatements: 5 } : {}
    const account: { maxUserConnections: number } = { maxUserConnections: 3 }
    await scene(server, { driver, max: 2, setup: SETUP, account, driverOptions }, async ({ db, url }) => {
      const other = openPool(url, driver, { max: 2 })
      const forms: Read = async (pool, n) => {
        const id = (n % ROWS) + 1
        const sql = `SELECT v, ${'id + '.repeat(n % 12)}id AS i FROM t WHERE id = ?`
        const { rows } = await pool.query(sql, [id], { prepare: true })
        return rows.length === 1 && rows[0].v === `row ${id}` && Number(rows[0].i) === id * ((n % 12) + 1)
          ? undefined
          : `${n}: ${JSON.stringify(rows)}`
      }
      const wrong = await Promise.all([readAll(db, 2_000, 60, forms), readAll(other, 2_000, 60, forms)])
      expect(summary(wrong.flat())).toEqual({})
      await other.drain()
    })
  })
})
