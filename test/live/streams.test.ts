import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, test } from 'vitest'
import type { Pool } from '../../src/index.js'
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
} from './scene.js'

const MANY = [
  'CREATE TABLE {db}.many (id INT PRIMARY KEY)',
  'INSERT INTO {db}.many WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) SELECT i FROM n',
]
/** A million rows, 200 MB. */
const HUGE = "SELECT a.id, b.id AS second, REPEAT('x', 200) AS pad FROM many a JOIN many b"
const SMALL = 'SELECT id FROM many ORDER BY id LIMIT 20'

async function threadOf(db: Pool): Promise<number> {
  return db.use(async (lease) => lease.threadId)
}

/** Reads a stream to its end, or its error. */
async function all<R>(stream: AsyncIterable<R>): Promise<{ rows: R[]; error?: unknown }> {
  const rows: R[] = []
  try {
    for await (const row of stream) rows.push(row)
  } catch (error) {
    return { rows, error }
  }
  return { rows }
}

describe.each(PAIRS)('streams on $kind with $driver', { concurrent: true }, ({ kind, driver }) => {
  test('all rows come, in order, with their values', async ({ expect }) => {
    await scene(await sharedServer(kind), { driver, max: 1, setup: MANY }, async ({ db }) => {
      const sql = 'SELECT (a.id - 1) * 1000 + b.id AS n, ? AS word FROM many a JOIN many b WHERE a.id <= 30 ORDER BY n'
      let expected = 1
      for await (const row of db.stream(sql, ["it's"])) {
        if (row.n !== expected || row.word !== "it's") expect.unreachable(`${expected}: ${JSON.stringify(row)}`)
        expected++
      }
      expect(expected).toBe(30_001)
      expect((await all(db.stream('SELECT id FROM many WHERE id < 0'))).rows).toEqual([])
      expect((await all(db.stream('CREATE TABLE other (id INT)'))).rows).toEqual([])
      expect((await all(db.stream('INSERT INTO other VALUES (1)'))).rows).toEqual([])
      const wide = await all(db.stream("SELECT id, REPEAT('y', 5000000) AS pad FROM many WHERE id <= 4"))
      expect(wide.rows.map((row) => row.pad.length)).toEqual(Array(4).fill(5_000_000))
      expect(db.stats().total.opened).toBe(1)
    })
  })

  test('leaving a huge result early costs the next user nothing, and the server stops', async ({ expect }) => {
    const server = await sharedServer(kind)
    await scene(
      server,
      { driver, max: 1, account: { maxUserConnections: 1 }, setup: MANY },
      async ({ db, account }) => {
        for (let round = 0; round < 3; round++) {
          let rows = 0
          for await (const _row of db.stream(HUGE)) if (++rows === 10) break
          expect((await soon(db.query('SELECT 1 AS one'), 1_000)).rows).toEqual([{ one: 1 }])
          await untilNotRunning(server, account.user, 'REPEAT', 1_000)
        }
      },
    )
  })

  test('leaving a small result early keeps the session', async ({ expect }) => {
    await scene(await sharedServer(kind), { driver, max: 1, setup: MANY }, async ({ db }) => {
      const before = await threadOf(db)
      for (let round = 0; round < 10; round++) {
        for await (const row of db.stream(SMALL)) if (row.id === 1 + round) break
        expect(await threadOf(db)).toBe(before)
      }
      expect(db.stats().total).toMatchObject({ opened: 1, retired: 0 })
    })
  })

  for (const pauses of [false, true]) {
    for (const how of ['KILL', 'RST', 'FIN'] as const) {
      test(`the session ends (${how}) in mid-result, the reader ${pauses ? 'pauses' : 'reads'}: STREAM_BROKEN`, async ({
        expect,
      }) => {
        const server = await sharedServer(kind)
        await scene(server, { driver, max: 1, relay: {}, setup: MANY }, async ({ db, relay, account }) => {
          let rows = 0
          const end = async (): Promise<void> => {
            if (how === 'RST') return relay.reset()
            if (how === 'FIN') return relay.cut()
            for (const { id } of await server.sessions(account.user)) await server.kill(id)
          }
          const read = async (): Promise<void> => {
            for await (const _row of db.stream(HUGE)) {
              if (++rows === 1_000 && pauses) {
                await end()
                await sleep(300)
              } else if (rows === 1_000) void end()
            }
          }
          const error = await soon(holdfastError(read(), 'STREAM_BROKEN'), 5_000)
          expect(error.cause).toBeInstanceOf(Error)
          expect(error.message).toContain(`${rows} rows`)
          expect(rows).toBeLessThan(1_000_000)
          expect((await soon(db.query('SELECT 1 AS one'))).rows).toEqual([{ one: 1 }])
        })
      })
    }
  }

  test("what the server says of the statement is the driver's own error, at once or after some rows", async ({
    expect,
  }) => {
    await scene(await sharedServer(kind), { driver, max: 1, setup: MANY }, async ({ db }) => {
      const before = await threadOf(db)
      expect(await all(db.stream('SELEC 1'))).toMatchObject({
        rows: [],
        error: { errno: 1064, code: 'ER_PARSE_ERROR' },
      })
      const late =
        'SELECT id, (SELECT b.id FROM many b WHERE b.id <= IF(a.id = 900, 2, 1)) AS x FROM many a ORDER BY id'
      const { rows, error } = await all(db.stream(late))
      expect(error).toMatchObject({ errno: 1242 })
      expect(rows.length).toBeLessThan(900)
      expect(await threadOf(db)).toBe(before)
    })
  })

  test('a signal ends a stream half-way, at once, and its statement on the server', async ({ expect }) => {
    const server = await sharedServer(kind)
    await scene(server, { driver, max: 1, setup: MANY }, async ({ db, account }) => {
      for (const sql of [HUGE, 'SELECT id, SLEEP(IF(id > 3, 20, 0)) AS slept FROM many']) {
        const controller = new AbortController()
        const reason = new Error('enough')
        setTimeout(() => controller.abort(reason), 200)
        const { error } = await soon(all(db.stream(sql, [], { signal: controller.signal })), 2_000)
        expect(error).toMatchObject({ code: 'ABORTED', cause: reason })
        await untilNotRunning(server, account.user, 'FROM many', 2_000)
        expect((await soon(db.query('SELECT 1 AS one'))).rows).toEqual([{ one: 1 }])
      }
    })
  })

  test("timeoutMs is for the server, not for the reader's own time", async ({ expect }) => {
    const server = await sharedServer(kind)
    await scene(server, { driver, max: 1, setup: MANY }, async ({ db, account }) => {
      let rows = 0
      for await (const _row of db.stream(SMALL, [], { timeoutMs: 300 })) if (++rows <= 2) await sleep(500)
      expect(rows).toBe(20)
      const stuck = all(db.stream('SELECT id, SLEEP(IF(id > 3, 20, 0)) AS slept FROM many', [], { timeoutMs: 300 }))
      expect((await soon(stuck, 2_000)).error).toMatchObject({ code: 'QUERY_TIMEOUT' })
      await untilNotRunning(server, account.user, 'slept', 2_000)
      expect((await soon(db.query('SELECT 1 AS one'))).rows).toEqual([{ one: 1 }])
    })
  })

  test('a stream on a lease: left early, the lease and what it holds go on, soon', async ({ expect }) => {
    await scene(await sharedServer(kind), { driver, max: 2, setup: MANY }, async ({ db }) => {
      await db.query('SELECT 1')
      await db.use(async (lease) => {
        const before = lease.threadId
        await lease.query('SET @mine = 5')
        const leave = async (): Promise<void> => {
          for await (const _row of lease.stream(SMALL)) break
          for await (const _row of lease.stream(HUGE)) break
        }
        await soon(leave(), 2_500)
        const { rows } = await soon(lease.query('SELECT @mine AS mine, CONNECTION_ID() AS id'), 1_500)
        expect({ mine: Number(rows[0].mine), id: Number(rows[0].id) }).toEqual({ mine: 5, id: before })
      })
    })
  })

  test('a stream in a transaction: left early, the transaction goes on', async ({ expect }) => {
    const setup = [...MANY, 'CREATE TABLE {db}.log (what VARCHAR(20))']
    await scene(await sharedServer(kind), { driver, max: 2, setup }, async ({ db, count }) => {
      await db.query('SELECT 1')
      let runs = 0
      const started = performance.now()
      await db.transaction(async (tx) => {
        runs++
        await tx.query("INSERT INTO log VALUES ('before')")
        for await (const _row of tx.stream(SMALL)) break
        for await (const _row of tx.stream(HUGE)) break
        expect((await all(tx.stream(SMALL))).rows).toHaveLength(20)
        await tx.query("INSERT INTO log VALUES ('after')")
        expect(await count('log')).toBe(0) // nothing was committed on the way
      })
      expect(performance.now() - started).toBeLessThan(2_500)
      expect(runs).toBe(1)
      expect(await count('log')).toBe(2)
    })
  })

  test('what ends a stream that was left early never hits the statement after it', async ({ expect }) => {
    const setup = [...MANY, 'CREATE TABLE {db}.log (n INT)']
    await scene(await sharedServer(kind), { driver, max: 3, setup }, async ({ db, count }) => {
      await Promise.all([1, 2].map(() => db.query('SELECT SLEEP(0.02)')))
      // Of all sizes, so that the server is done before, at, and after the moment at which it is told to stop.
      await db.use(async (lease) => {
        for (let n = 0; n < 40; n++) {
          for await (const _row of lease.stream(`${HUGE} WHERE a.id <= ${1 + (n % 10) * 3}`)) break
          await lease.query('INSERT INTO log VALUES (?)', [n])
          expect((await lease.query('SELECT COUNT(*) AS n FROM many')).rows).toEqual([{ n: 1_000 }])
        }
      })
      expect(await count('log')).toBe(40)
    })
  })

  test('net_write_timeout = 1 and a reader that pauses 3 s: STREAM_BROKEN, never a quiet end', async ({ expect }) => {
    const options = { driver, max: 1, sessionInit: 'SET SESSION net_write_timeout = 1', setup: MANY }
    await scene(await sharedServer(kind), options, async ({ db }) => {
      let rows = 0
      const read = async (): Promise<void> => {
        for await (const _row of db.stream(HUGE)) if (++rows === 100) await sleep(3_000)
      }
      await soon(holdfastError(read(), 'STREAM_BROKEN'), 10_000)
      expect(rows).toBeLessThan(1_000_000)
      expect((await soon(db.query('SELECT 1 AS one'))).rows).toEqual([{ one: 1 }])
    })
  })
})

describe.each(DRIVERS.map((driver) => ({ driver })))('streams with $driver', { concurrent: true }, ({ driver }) => {
  test('a reader that sleeps is not flooded: bytes and memory stay bounded', async ({ expect }) => {
    await scene(await sharedServer(MARIADB), { driver, max: 1, relay: {}, setup: MANY }, async ({ db, relay }) => {
      let rows = 0
      for await (const _row of db.stream(HUGE)) {
        if (++rows !== 10) continue
        await sleep(300)
        const asleep = { bytes: relay.bytesDown, buffers: process.memoryUsage().arrayBuffers }
        await sleep(700)
        // What the kernels take on the way is some MB; 200 MB would have come in this time.
        expect(relay.bytesDown).toBeLessThan(30_000_000)
        expect(relay.bytesDown - asleep.bytes).toBeLessThan(2_000_000)
        expect(process.memoryUsage().arrayBuffers - asleep.buffers).toBeLessThan(60_000_000)
        break
      }
    })
  })

  test('a silent network in mid-result: timeoutMs rejects, on the pool, a lease and in a transaction', async ({
    expect,
  }) => {
    await scene(await sharedServer(MARIADB), { driver, max: 3, relay: {}, setup: MANY }, async ({ db, relay }) => {
      const stalled = async (stream: AsyncIterable<unknown>): Promise<void> => {
        let rows = 0
        const read = async (): Promise<void> => {
          for await (const _row of stream) if (++rows === 1_000) relay.stallExisting()
        }
        await soon(holdfastError(read(), 'QUERY_TIMEOUT'), 2_500).finally(() => relay.resume())
        expect(rows).toBeGreaterThanOrEqual(1_000)
      }
      const options = { timeoutMs: 300 }
      await stalled(db.stream(HUGE, [], options))
      await soon(
        db.use((lease) => stalled(lease.stream(HUGE, [], options))),
        5_000,
      )
      await soon(Promise.allSettled([db.transaction((tx) => stalled(tx.stream(HUGE, [], options)))]), 8_000)
      expect((await soon(db.query('SELECT 1 AS one'), 4_000)).rows).toEqual([{ one: 1 }])
    })
  })

  test('lease.stream: a signal and timeoutMs reject at once, and end the statement', async ({ expect }) => {
    const server = await sharedServer(MARIADB)
    await scene(server, { driver, max: 2, setup: MANY }, async ({ db, account }) => {
      await db.query('SELECT 1')
      const stuck = 'SELECT id, SLEEP(IF(id > 3, 20, 0)) AS slept FROM many'
      await db.use(async (lease) => {
        const { error } = await soon(all(lease.stream(stuck, [], { timeoutMs: 200 })), 1_500)
        expect(error).toMatchObject({ code: 'QUERY_TIMEOUT' })
        await untilNotRunning(server, account.user, 'slept', 2_000)
      })
      await db.use(async (lease) => {
        const signal = AbortSignal.timeout(200)
        const { error } = await soon(all(lease.stream(HUGE, [], { signal })), 1_500)
        expect(error).toMatchObject({ code: 'ABORTED' })
        await untilNotRunning(server, account.user, 'REPEAT', 2_000)
      })
      const transaction = db.transaction((tx) => all(tx.stream(stuck)), { timeoutMs: 400 })
      await soon(holdfastError(transaction, 'QUERY_TIMEOUT'), 2_000)
      await untilNotRunning(server, account.user, 'slept', 2_000)
    })
  })

  test('a stream on the only session: what is left of it is ended on the server all the same', async ({ expect }) => {
    const server = await sharedServer(MARIADB)
    await scene(server, { driver, max: 1, setup: MANY }, async ({ db, account }) => {
      await db.query('SELECT 1')
      const timedOut = db.use(async (lease) => {
        await holdfastError(lease.stream('SELECT SLEEP(20) AS slept', [], { timeoutMs: 300 }).next(), 'QUERY_TIMEOUT')
      })
      await soon(timedOut, 2_000)
      expect((await soon(db.query('SELECT 1 AS one'), 4_000)).rows).toEqual([{ one: 1 }])
      await untilNotRunning(server, account.user, 'slept', 4_000)
      const leftEarly = db.use(async (lease) => {
        for await (const _row of lease.stream(`${HUGE} JOIN many c`)) break
      })
      await soon(leftEarly, 4_000)
      expect((await soon(db.query('SELECT 1 AS one'), 4_000)).rows).toEqual([{ one: 1 }])
      await untilNotRunning(server, account.user, 'REPEAT', 4_000)
    })
  })

  test('a statement on a lease whose stream is being read does not hang for ever', async ({ expect }) => {
    await scene(await sharedServer(MARIADB), { driver, max: 1, setup: MANY }, async ({ db }) => {
      await db.use(async (lease) => {
        const read = async (): Promise<void> => {
          for await (const row of lease.stream(SMALL)) await lease.query('SELECT ? AS id', [row.id])
        }
        await soon(Promise.allSettled([read()]), 2_000)
      })
      await db.transaction(async (tx) => {
        const read = async (): Promise<void> => {
          for await (const row of tx.stream(SMALL)) await tx.query('SELECT ? AS id', [row.id])
        }
        await soon(Promise.allSettled([read()]), 2_000)
      })
      expect((await soon(db.query('SELECT 1 AS one'))).rows).toEqual([{ one: 1 }])
    })
  })

  test('two streams on one lease: the second waits, or is refused, and the first is whole', async ({ expect }) => {
    await scene(await sharedServer(MARIADB), { driver, max: 2, setup: MANY }, async ({ db }) => {
      await db.use(async (lease) => {
        const big = `${HUGE} WHERE a.id <= 50`
        const [first, second] = await soon(Promise.all([all(lease.stream(big)), all(lease.stream(big))]), 10_000)
        expect(first).toMatchObject({ rows: { length: 50_000 } })
        if (second.error) expect(second).toMatchObject({ rows: [], error: { code: 'LEASE_BUSY', effect: 'none' } })
        else expect(second.rows).toHaveLength(50_000)
        expect((await all(lease.stream(SMALL))).rows).toHaveLength(20)
      })
    })
  })

  test('the iterator: read twice, left before it began, left twice, thrown in', async ({ expect }) => {
    await scene(await sharedServer(MARIADB), { driver, max: 1, setup: MANY }, async ({ db }) => {
      const twice = db.stream(SMALL)
      expect((await all(twice)).rows).toHaveLength(20)
      expect((await soon(all(twice))).rows).toEqual([])

      const never = db.stream(SMALL)
      expect(await never.return?.()).toEqual({ done: true, value: undefined })
      expect(await soon(never.next())).toEqual({ done: true, value: undefined })
      db.stream(SMALL) // costs nothing
      expect(db.stats()).toMatchObject({ leased: 0, waiting: 0 })

      const half = db.stream(SMALL)
      await half.next()
      await half.return?.()
      await half.return?.()
      expect(await half.next()).toEqual({ done: true, value: undefined })

      const mine = new Error('mine')
      const thrown = (async () => {
        for await (const row of db.stream(SMALL)) if (row.id === 3) throw mine
      })()
      expect(await failure(thrown)).toBe(mine)

      const [first, second] = [db.stream(SMALL), db.stream(SMALL)]
      await first.next()
      const waits = second.next()
      await first.return?.()
      expect((await soon(waits)).value).toEqual({ id: 1 })
      await second.return?.()
      expect(db.stats()).toMatchObject({ leased: 0, waiting: 0 })
    })
  })

  test('calls of next() that do not wait for one another get all rows, on one session', async ({ expect }) => {
    await scene(await sharedServer(MARIADB), { driver, max: 3, setup: MANY }, async ({ db }) => {
      await Promise.all([1, 2, 3].map(() => db.query('SELECT SLEEP(0.02)')))
      const stream = db.stream(SMALL)
      const steps = await soon(Promise.all(Array.from({ length: 25 }, () => stream.next())))
      expect(steps.flatMap((step) => (step.done ? [] : [step.value.id]))).toEqual(
        [...Array(20).keys()].map((n) => n + 1),
      )
      await until(() => db.stats().leased === 0)
    })
  })

  test('return() while next() waits for a session, or for a row, leaves nothing behind', async ({ expect }) => {
    const server = await sharedServer(MARIADB)
    await scene(server, { driver, max: 1, setup: MANY }, async ({ db, account }) => {
      const lease = await db.acquire()
      const inLine = db.stream(SMALL)
      const first = inLine.next()
      first.catch(() => {})
      const left = inLine.return?.()
      await sleep(20)
      lease.release()
      await soon(Promise.allSettled([first, left]))
      await until(() => db.stats().leased === 0, 1_000)

      const slow = db.stream('SELECT SLEEP(20) AS slept')
      const row = slow.next()
      row.catch(() => {})
      await sleep(200)
      await soon(Promise.allSettled([slow.return?.(), row]), 2_000)
      await untilNotRunning(server, account.user, 'slept', 2_000)
      await until(() => db.stats().leased === 0, 1_000)
      expect((await soon(db.query('SELECT 1 AS one'))).rows).toEqual([{ one: 1 }])
    })
  })

  test('as a Node stream: read whole, and destroyed half-way', async ({ expect }) => {
    const server = await sharedServer(MARIADB)
    await scene(server, { driver, max: 1, setup: MANY }, async ({ db, account }) => {
      expect(await Readable.from(db.stream(SMALL)).toArray()).toHaveLength(20)
      const half = Readable.from(db.stream(HUGE))
      let rows = 0
      await new Promise<void>((resolve) => {
        half.on('data', () => ++rows === 100 && half.destroy())
        half.on('close', resolve)
      })
      await untilNotRunning(server, account.user, 'REPEAT', 2_000)
      await until(() => db.stats().leased === 0, 1_000)
      expect((await soon(db.query('SELECT 1 AS one'))).rows).toEqual([{ one: 1 }])
    })
  })

  test('many streams at once on few sessions, some left early, some lost', async ({ expect }) => {
    const server = await sharedServer(MARIADB)
    await scene(
      server,
      { driver, max: 3, account: { maxUserConnections: 3 }, setup: MANY },
      async ({ db, account }) => {
        const reads = Array.from({ length: 30 }, async (_, n) => {
          let rows = 0
          try {
            for await (const _row of db.stream(n % 3 === 0 ? HUGE : SMALL)) {
              rows++
              if (n % 3 === 0 && rows === 500) break
              if (n % 7 === 0 && rows === 5) {
                for (const { id, info } of await server.sessions(account.user))
                  if (info) await server.kill(id).catch(() => {})
              }
            }
          } catch (error) {
            return (error as { code: string }).code
          }
          return n % 3 === 0 || rows === 20 ? 'ok' : `only ${rows} rows`
        })
        const told = await soon(Promise.all(reads), 12_000)
        expect(told.filter((each) => !['ok', 'STREAM_BROKEN', 'SESSION_LOST'].includes(each))).toEqual([])
        expect(told.filter((each) => each === 'ok').length).toBeGreaterThan(10)
      },
    )
  })

  test('it waits in line as all do, and fails as all do', async ({ expect }) => {
    const options = { driver, max: 1, acquireTimeoutMs: 200, setup: MANY }
    await scene(await sharedServer(MARIADB), options, async ({ db }) => {
      await until(() => db.query('SELECT 1')) // opening may take its time
      const lease = await db.acquire()
      await holdfastError(db.stream(SMALL).next(), 'POOL_ACQUIRE_TIMEOUT')
      const gone = AbortSignal.abort(new Error('gone'))
      await holdfastError(db.stream(SMALL, [], { signal: gone }).next(), 'ABORTED')
      const soonGone = all(db.stream(SMALL, [], { signal: AbortSignal.timeout(50) }))
      expect((await soonGone).error).toMatchObject({ code: 'ABORTED', effect: 'none' })
      lease.release()
      const released = lease.stream(SMALL)
      await holdfastError(released.next(), 'LEASE_RELEASED')
      expect((await all(db.stream(SMALL))).rows).toHaveLength(20)
    })
  })

  test('a lease that is released while its stream is read: the reader gets all of it, or is told', async ({
    expect,
  }) => {
    await scene(await sharedServer(MARIADB), { driver, max: 2, setup: MANY }, async ({ db }) => {
      for (const sql of [SMALL, `${HUGE} WHERE a.id <= 50`]) {
        const lease = await db.acquire()
        const stream = lease.stream(sql)
        await stream.next()
        lease.release()
        const { rows, error } = await soon(all(stream), 10_000)
        if (error) expect(['LEASE_RELEASED', 'STREAM_BROKEN']).toContain((error as { code: string }).code)
        else expect(rows).toHaveLength(sql === SMALL ? 19 : 49_999)
        await until(() => db.stats().leased === 0)
        expect((await soon(db.query('SELECT 1 AS one'))).rows).toEqual([{ one: 1 }])
      }
    })
  })

  test('a block that returns while a flow of it reads a stream: the reader gets all of it, or is told', async ({
    expect,
  }) => {
    const setup = [...MANY, 'CREATE TABLE {db}.log (what VARCHAR(20))']
    await scene(await sharedServer(MARIADB), { driver, max: 2, setup }, async ({ db, count }) => {
      let reading: Promise<{ rows: unknown[]; error?: unknown }> | undefined
      const whole = db.transaction(async (tx) => {
        await tx.query("INSERT INTO log VALUES ('mine')")
        const stream = tx.stream(`${HUGE} WHERE a.id <= 50`)
        await stream.next()
        reading = all(stream)
      })
      const [outcome] = await soon(Promise.allSettled([whole]), 10_000)
      const { rows, error } = (await soon(reading as PromiseLike<unknown>, 5_000)) as {
        rows: unknown[]
        error?: unknown
      }
      if (error) expect(error).toHaveProperty('code')
      else expect(rows).toHaveLength(49_999)
      expect(await count('log')).toBe(outcome.status === 'fulfilled' ? 1 : 0)
    })
  })
})
