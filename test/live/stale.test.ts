import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createPool, type PoolOptions } from '../../src/index.js'
import { startScript } from '../../src/testing/process.js'
import { startRelay, type Link } from '../../src/testing/relay.js'
import { startServer, type Account, type ServerKind, type TestServer } from '../../src/testing/server.js'
import {
  crowd,
  eachDriver,
  keepBusy,
  nothingLeft,
  optionsFor,
  outcome,
  placesOf,
  sleep,
  statusOf,
  tally,
  troubles,
  until,
  watchLag,
  withPool,
  type DriverName,
} from './support.js'

const WAIT_TIMEOUT = '--wait-timeout=2'

/** One server of each kind, with each set of flags: accounts keep the tests apart. */
const servers = new Map<string, Promise<TestServer>>()
afterAll(() => Promise.all([...servers.values()].map(async (server) => (await server)[Symbol.asyncDispose]())))

function serverOf(kind: ServerKind, ...flags: readonly string[]): () => TestServer {
  let server: TestServer
  beforeAll(async () => {
    const key = [kind, ...flags].join(' ')
    if (!servers.has(key)) servers.set(key, startServer(kind, { flags }))
    server = await (servers.get(key) as Promise<TestServer>)
  })
  return () => server
}

/** So many sessions, idle. */
async function warm(db: ReturnType<typeof createPool>, sessions: number): Promise<void> {
  const leases = await Promise.all(Array.from({ length: sessions }, () => db.acquire()))
  for (const lease of leases) lease.release()
  await until('they are idle', () => db.stats().idle >= sessions)
}

describe.concurrent.each(eachDriver())('after wait_timeout, on $kind with $driver', ({ kind, driver }) => {
  const server = serverOf(kind, WAIT_TIMEOUT)

  test('idle sessions are given back before the server cuts them, and the next query works', async () => {
    const account = await server().createAccount()
    await withPool({ server: server(), account, driver, options: { max: 5 } }, async (db) => {
      await warm(db, 5)
      await until('all are given back', () => db.stats().held === 0, 3_000)
      await server().untilNoSessions(account.user)
      expect(tally(await crowd(5, () => db.query('SELECT 1')))).toEqual({ ok: 5 })
    })
  })

  // In a process of its own: it blocks the event loop.
  const BLOCKED = `
    import { createPool } from './dist/index.js'
    const { options, sessions } = JSON.parse(process.argv[1])
    const block = (ms) => { const end = performance.now() + ms; while (performance.now() < end); }
    const settle = (promise) => promise.then(() => 'ok', (error) => [error.code, error.effect, error.message].join(' '))
    process.on('unhandledRejection', (error) => process.send({ unhandled: String(error) }))
    const db = createPool({ ...options, max: sessions })
    const leases = await Promise.all(Array.from({ length: sessions }, () => db.acquire()))
    for (const lease of leases) lease.release()
    const warm = db.stats().idle
    block(2_400)
    const queries = await Promise.all(Array.from({ length: sessions }, () => settle(db.query('SELECT 1'))))

    await db.query('CREATE TABLE IF NOT EXISTS b (id INT PRIMARY KEY)')
    const lease = await db.acquire()
    let attempts = 0
    const transaction = await settle(db.transaction(async (tx) => {
      await tx.query('INSERT INTO b VALUES (1)')
      if (attempts++ === 0) block(2_400)
      await tx.query('INSERT INTO b VALUES (2)')
    }))
    const late = await settle(lease.query('SELECT 1'))
    lease.release()
    await db.drain()
    process.send({ warm, queries, transaction, attempts, late })
    process.disconnect()
  `

  test('the event loop was blocked for longer: every query succeeds, a transaction is run again, a lease says that nothing was executed', async () => {
    const account = await server().createAccount()
    const options = optionsFor(server(), account, driver)
    await using program = startScript(BLOCKED, { args: [JSON.stringify({ options, sessions: 6 })] })
    expect(await program.next(25_000)).toEqual({
      warm: 6,
      queries: Array(6).fill('ok'),
      transaction: 'ok',
      attempts: 2,
      late: expect.stringMatching(/^SESSION_LOST none /),
    })
    expect(await program.exited).toEqual({ code: 0, signal: null })
    expect(program.output, 'no driver wrote to the console').toBe('')
    await server().untilNoSessions(account.user)
  })

  const FROZEN = `
    import { createPool } from './dist/index.js'
    const { options, sessions } = JSON.parse(process.argv[1])
    const settle = (promise) => promise.then(() => 'ok', (error) => [error.code, error.effect, error.message].join(' '))
    process.on('unhandledRejection', (error) => process.send({ unhandled: String(error) }))
    const db = createPool({ ...options, max: sessions, minIdle: 2 })
    const leases = await Promise.all(Array.from({ length: sessions }, () => db.acquire()))
    for (const lease of leases) lease.release()
    let at = performance.now()
    // The first thing that it does when it goes on is to query.
    const timer = setInterval(async () => {
      const gone = performance.now() - at
      at = performance.now()
      if (gone < 2_000) return
      clearInterval(timer)
      const queries = await Promise.all(Array.from({ length: sessions }, () => settle(db.query('SELECT 1'))))
      await db.drain()
      process.send({ queries })
      process.disconnect()
    }, 1)
    process.send(db.stats().idle)
  `

  test('the process was stopped for longer: every query succeeds', async () => {
    const account = await server().createAccount()
    const options = optionsFor(server(), account, driver)
    await using program = startScript(FROZEN, { args: [JSON.stringify({ options, sessions: 5 })] })
    expect(await program.next()).toBe(5)
    await program.freeze()
    await sleep(2_600)
    program.thaw()
    expect(await program.next()).toEqual({ queries: Array(5).fill('ok') })
    expect(await program.exited).toEqual({ code: 0, signal: null })
    expect(program.output).toBe('')
    await server().untilNoSessions(account.user)
  })
})

describe.concurrent.each([...eachDriver(['mariadb-10.11']), ...eachDriver(['mysql-9.7']).slice(0, 1)])(
  'kept alive, on $kind with $driver',
  ({ kind, driver }) => {
    const server = serverOf(kind, WAIT_TIMEOUT)

    test('minIdle sessions are kept alive', async () => {
      const account = await server().createAccount()
      await withPool(
        { server: server(), account, driver, options: { minIdle: 2, sessionInit: 'SET SESSION wait_timeout = 5' } },
        async (db) => {
          await until('two are there', () => db.stats().idle === 2)
          const ids = async (): Promise<number[]> =>
            (await server().sessions(account.user)).map(({ id }) => id).sort((a, b) => a - b)
          const before = await ids()
          await sleep(8_000)
          expect(await ids()).toEqual(before)
          expect(db.stats().held).toBe(2)
          expect(tally(await crowd(2, () => db.query('SELECT 1')))).toEqual({ ok: 2 })
        },
      )
    })

    test('a wait_timeout that sessionInit has raised is the one that counts', async () => {
      const account = await server().createAccount()
      await withPool(
        { server: server(), account, driver, options: { sessionInit: 'SET SESSION wait_timeout = 100' } },
        async (db) => {
          const id = async (): Promise<number> => Number((await db.query('SELECT CONNECTION_ID() AS id')).rows[0].id)
          const before = await id()
          expect(db.limits()?.waitTimeoutMs).toBe(100_000)
          await sleep(3_000)
          expect(await id()).toBe(before)
        },
      )
    })

    test('a lease kept through a long job stays alive, with an open transaction and without', async () => {
      const account = await server().createAccount()
      await withPool({ server: server(), account, driver }, async (db) => {
        await db.query('CREATE TABLE t (id INT PRIMARY KEY) ENGINE=InnoDB')
        const job = async (begin: string): Promise<void> =>
          db.use(async (lease) => {
            const { threadId } = lease
            await lease.query(begin)
            if (begin === 'BEGIN') await lease.query('INSERT INTO t VALUES (1)')
            await sleep(6_500)
            const { rows } = await lease.query('SELECT CONNECTION_ID() AS id')
            expect(Number(rows[0].id)).toBe(threadId)
            if (begin === 'BEGIN') await lease.query('COMMIT')
          })
        const inTransaction = db.transaction(async (tx) => {
          await tx.query('INSERT INTO t VALUES (2)')
          await sleep(6_500)
          await tx.query('INSERT INTO t VALUES (3)')
        })
        await Promise.all([job('SELECT 1'), job('BEGIN'), inTransaction])
        const { rows } = await db.query('SELECT id FROM t ORDER BY id')
        expect(rows.map(({ id }) => id)).toEqual([1, 2, 3])
        expect(db.stats().total.retries).toBe(0)
      })
    })
  },
)

describe.concurrent.each(eachDriver(['mariadb-10.11', 'mysql-9.7']))(
  'sessions that the server ended, on $kind with $driver',
  ({ kind, driver }) => {
    const server = serverOf(kind, WAIT_TIMEOUT)

    test('those killed while idle are noticed: every query succeeds', async () => {
      const account = await server().createAccount()
      await withPool({ server: server(), account, driver, options: { max: 5 } }, async (db) => {
        for (let round = 0; round < 3; round++) {
          await warm(db, 5)
          const victims = await server().sessions(account.user)
          expect(victims).toHaveLength(5)
          for (const { id } of victims)
            await server()
              .kill(id)
              .catch(() => {}) // gone by itself
          await until('they are noticed', () => db.stats().held === 0)
          expect(tally(await crowd(5, () => db.query('SELECT 1')))).toEqual({ ok: 5 })
        }
      })
    })

    test('those killed while they are lent: what is idempotent succeeds, the rest says that its effect is unknown', async () => {
      const account = await server().createAccount()
      await withPool({ server: server(), account, driver, options: { max: 5 } }, async (db) => {
        await warm(db, 5)
        const victims = await server().sessions(account.user)
        const killing = Promise.all(victims.map(({ id }) => server().kill(id)))
        const outcomes = await crowd(20, () => db.query('SELECT SLEEP(0.001)', [], { idempotent: true }))
        await killing
        expect(tally(outcomes)).toEqual({ ok: 20 })

        await warm(db, 3)
        const running = crowd(3, () => db.query('SELECT SLEEP(5)'))
        await until(
          'they run',
          async () =>
            (await server().sessions(account.user)).filter(({ info }) => info?.includes('SLEEP(5)')).length === 3,
        )
        for (const { id } of await server().sessions(account.user)) await server().kill(id)
        for (const { error, ms } of await running) {
          expect(error).toMatchObject({ code: 'SESSION_LOST', effect: 'unknown' })
          expect(ms).toBeLessThan(4_000)
        }
        await db.query('SELECT 1')
      })
    })

    test('a lease whose session was killed says so at every call, and costs the next user nothing', async () => {
      const account = await server().createAccount()
      await withPool({ server: server(), account, driver, options: { max: 1 } }, async (db) => {
        const lease = await db.acquire()
        await server().kill(lease.threadId)
        await server().untilNoSessions(account.user)
        await sleep(100)
        for (let call = 0; call < 3; call++) {
          const { error } = await outcome(lease.query('SELECT 1'))
          expect(error).toMatchObject({ code: 'SESSION_LOST', effect: 'none' })
        }
        lease.release()
        lease.release()
        expect((await db.query('SELECT 1 AS one')).rows[0].one).toBe(1)
        expect(db.stats()).toMatchObject({ held: 1, idle: 1 })
      })
    })

    test('over TLS they are noticed as well', async () => {
      const key = `${kind} tls`
      if (!servers.has(key)) servers.set(key, startServer(kind, { tls: true }))
      const secure = await (servers.get(key) as Promise<TestServer>)
      const account = await secure.createAccount()
      const options: PoolOptions = { max: 5, host: 'localhost', ssl: { ca: secure.ca } }
      await withPool({ server: secure, account, driver, options }, async (db) => {
        const { rows } = await db.query("SHOW STATUS LIKE 'Ssl_cipher'")
        expect(Object.values(rows[0] as object)[1]).not.toBe('')
        await warm(db, 5)
        for (const { id } of await secure.sessions(account.user)) await secure.kill(id)
        await until('they are noticed', () => db.stats().held === 0)
        expect(tally(await crowd(5, () => db.query('SELECT 1')))).toEqual({ ok: 5 })
      })
    })

    test('sessions of their age are looked at after one was lost, however much they are trusted', async () => {
      const account = await server().createAccount()
      const links: Link[] = []
      await using relay = await startRelay(server(), {
        onRequest: (chunk, link) => void (chunk.includes('remember this one') && links.push(link)),
      })
      const options = { max: 4, trustMs: 60_000, pingAfterMs: 60_000, port: relay.port }
      await withPool({ server: server(), account, driver, options }, async (db) => {
        const others = await Promise.all([1, 2, 3].map(() => db.acquire()))
        const last = await db.acquire()
        await last.query("SELECT 'remember this one'")
        for (const lease of others) lease.release()
        // The network forgets all of them, and the loss of one is seen.
        relay.stallExisting()
        links[0]?.reset()
        expect((await outcome(last.query('SELECT 1'))).error).toMatchObject({ code: 'SESSION_LOST' })
        last.release()
        const outcomes = await crowd(3, () => db.query('SELECT 1', [], { timeoutMs: 6_000 }))
        expect(tally(outcomes)).toEqual({ ok: 3 })
        relay.resume()
      })
    })
  },
)

describe.concurrent.each(eachDriver(['mariadb-10.11', 'mysql-9.7']))(
  'a server that restarts, on $kind with $driver',
  ({ kind, driver }) => {
    // A server for each, and one test after the other: what they do concerns all its sessions.
    const server = serverOf(
      kind,
      '--wait-timeout=4',
      driver === 'mysql2' ? '--max-connections=150' : '--max-connections=151',
    )

    test.sequential.each(['SIGKILL', 'SIGTERM'] as const)(
      'by %s under load: only what was under way is uncertain',
      async (signal) => {
        const account = await server().createAccount()
        const db = createPool({ ...optionsFor(server(), account, driver), max: 6, acquireTimeoutMs: 20_000 })
        await db.query('CREATE TABLE t (id INT PRIMARY KEY) ENGINE=InnoDB')

        using reading = keepBusy(3, () => db.query('SELECT COUNT(*) FROM t', [], { idempotent: true }))
        const acknowledged: number[] = []
        let next = 0
        using writing = keepBusy(2, async () => {
          const id = next++
          await db.query('INSERT INTO t VALUES (?)', [id])
          acknowledged.push(id)
          await sleep(2)
        })
        await until('they work', () => next > 20)
        await server().stop(signal)
        await sleep(20) // a session whose end has not been read yet may still be lent
        const began = next
        const queries = crowd(10, () => db.query('INSERT INTO t VALUES (?)', [1_000_000 + next++]))
        const transactions = crowd(5, () =>
          db.transaction((tx) => tx.query('INSERT INTO t VALUES (?)', [1_000_000 + next++])),
        )
        const impatient = await outcome(db.query('SELECT 1', [], { timeoutMs: 500 }))
        expect(impatient.error).toMatchObject({ code: 'POOL_ACQUIRE_TIMEOUT', effect: 'none' })
        expect(impatient.error?.message).toMatch(/ECONNREFUSED/)
        await sleep(1_500)
        await server().start()
        expect(tally(await queries)).toEqual({ ok: 10 })
        expect(tally(await transactions)).toEqual({ ok: 5 })
        await until('writes go on', () => next > began + 40)
        expect(await reading.stop()).toEqual({ ok: reading.outcomes.length })
        await writing.stop()
        const failed = writing.outcomes.filter(({ error }) => error !== undefined)
        expect(failed.length, 'at most what was under way').toBeLessThanOrEqual(2)
        for (const { error } of failed) {
          // MySQL may say in words that it did not do it.
          if ((error as { errno?: number }).errno === 1317) continue
          expect(error).toMatchObject({ code: 'SESSION_LOST' })
        }
        // A SIGKILL may cost the test server what it had not written to its log yet.
        if (signal === 'SIGTERM') {
          const there = new Set((await db.query('SELECT id FROM t')).rows.map(({ id }) => id as number))
          expect(acknowledged.filter((id) => !there.has(id))).toEqual([])
        }
        await nothingLeft(server(), account, db)
      },
    )

    test.sequential(
      'a server that takes no more writes (1290): its sessions are retired, and healed it is written to',
      async () => {
        const account = await server().createAccount()
        const db = createPool({ ...optionsFor(server(), account, driver), max: 2 })
        await db.query('CREATE TABLE t (id INT PRIMARY KEY)')
        await warm(db, 2)
        const ids = async (): Promise<number[]> => (await server().sessions(account.user)).map(({ id }) => id)
        const before = await ids()
        await server().query('SET GLOBAL read_only = 1')
        for (let round = 0; round < 2; round++) {
          const { error } = await outcome(db.query('INSERT INTO t VALUES (1)'))
          expect(error, "the driver's own error").toMatchObject({ errno: 1290 })
          expect(error?.name).not.toBe('HoldfastError')
        }
        await until('both are retired', async () => (await ids()).every((id) => !before.includes(id)) || ids())
        await db.use(async (lease) => {
          expect((await outcome(lease.query('INSERT INTO t VALUES (2)'))).error).toMatchObject({ errno: 1290 })
          await lease.query('SELECT 1')
        })
        const { error } = await outcome(db.transaction((tx) => tx.query('INSERT INTO t VALUES (3)')))
        expect(error).toMatchObject({ errno: 1290 })
        await server().query('SET GLOBAL read_only = 0')
        await db.query('INSERT INTO t VALUES (4)')
        await nothingLeft(server(), account, db)
      },
    )

    test.sequential('a server that stands still for two seconds: everything is late, and nothing fails', async () => {
      const account = await server().createAccount()
      const db = createPool({ ...optionsFor(server(), account, driver), max: 4, trustMs: 0, pingAfterMs: 100 })
      await db.query('CREATE TABLE t (id INT PRIMARY KEY)')
      let next = 0
      using reading = keepBusy(3, () => db.query('SELECT COUNT(*) FROM t'))
      using writing = keepBusy(2, () => db.query('INSERT INTO t VALUES (?)', [next++]))
      using transacting = keepBusy(2, () => db.transaction((tx) => tx.query('INSERT INTO t VALUES (?)', [next++])))
      await until('they work', () => next > 20)
      await server().freeze()
      const impatient = await outcome(db.query('SELECT 1', [], { timeoutMs: 300 }))
      expect(impatient.error?.code).toMatch(/POOL_ACQUIRE_TIMEOUT|QUERY_TIMEOUT/)
      await sleep(2_000)
      server().thaw()
      const began = next
      await until('they go on', () => next > began + 20)
      for (const load of [reading, writing, transacting]) {
        await load.stop()
        expect(troubles(load.outcomes)).toEqual([])
      }
      expect(Number((await db.query('SELECT COUNT(*) AS n FROM t')).rows[0].n)).toBe(next)
      await nothingLeft(server(), account, db)
    })

    // MySQL alone has it.
    if (kind === 'mysql-9.7')
      test('a server that is set offline (3032) is waited for', { sequential: true }, async () => {
        const account = await server().createAccount()
        const db = createPool({ ...optionsFor(server(), account, driver), max: 4 })
        await warm(db, 3)
        await server().query('SET GLOBAL offline_mode = 1')
        await until('its sessions are gone', () => db.stats().held === 0)
        const waiting = crowd(10, () => db.query('SELECT 1'))
        const impatient = await outcome(db.query('SELECT 1', [], { timeoutMs: 400 }))
        expect(impatient.error).toMatchObject({ code: 'POOL_ACQUIRE_TIMEOUT', cause: { errno: 3032 } })
        await server().query('SET GLOBAL offline_mode = 0')
        expect(troubles(await waiting)).toEqual([])
        await nothingLeft(server(), account, db)
      })

    test.sequential('sessions that idle do not make Aborted_clients grow', async () => {
      const account = await server().createAccount()
      await withPool({ server: server(), account, driver, options: { max: 5 } }, async (db) => {
        const before = await statusOf(server(), 'Aborted_clients')
        await warm(db, 5)
        await until('they are given back', () => db.stats().held === 0, 6_000)
        await db.query('SELECT 1')
        await sleep(200)
        expect(await statusOf(server(), 'Aborted_clients')).toBe(before)
      })
    })
  },
)

describe.concurrent.each(eachDriver(['mariadb-10.11']))(
  'silence, on $kind with $driver',
  ({ kind, driver }: { kind: ServerKind; driver: DriverName }) => {
    const server = serverOf(kind)

    test.each([1, 3, 10])(
      'a pool of %i whose idle sessions fell silent: a query succeeds in about a second',
      async (max) => {
        const account = await server().createAccount()
        await using relay = await startRelay(server())
        await withPool(
          { server: server(), account, driver, options: { max, port: relay.port, trustMs: 0, pingAfterMs: 100 } },
          async (db) => {
            await warm(db, max)
            await sleep(200)
            relay.stallExisting()
            using lag = watchLag()
            const { error, ms } = await outcome(db.query('SELECT 1'))
            expect(error).toBeUndefined()
            expect(ms).toBeLessThan(2_500 + 4 * lag.worst())
            expect(tally(await crowd(max * 2, () => db.query('SELECT 1')))).toEqual({ ok: max * 2 })
            relay.resume()
          },
        )
      },
    )

    test('statements that timed out on silent sessions do not cost their slots', async () => {
      const account = await server().createAccount()
      await using relay = await startRelay(server())
      await withPool({ server: server(), account, driver, options: { max: 3, port: relay.port } }, async (db) => {
        await warm(db, 3)
        relay.stallExisting()
        const late = await crowd(2, () => db.query('SELECT 1', [], { timeoutMs: 300 }))
        expect(tally(late)).toEqual({ QUERY_TIMEOUT: 2 })
        expect(Math.max(...late.map(({ ms }) => ms))).toBeLessThan(1_000)
        await until('no ghost is left', () => db.stats().lane + db.stats().ghost === 0 || placesOf(db), 8_000)
        const leases = await crowd(3, () => db.acquire({ timeoutMs: 3_000 }))
        expect(tally(leases)).toEqual({ ok: 3 })
        for (const { value } of leases) value?.release()
        relay.resume()
      })
    })

    test('a statement that timed out on the one silent session of several is not waited for', async () => {
      const account = await server().createAccount()
      const links: Link[] = []
      await using relay = await startRelay(server(), {
        onRequest: (chunk, link) => void (chunk.includes('remember this one') && links.push(link)),
      })
      await withPool({ server: server(), account, driver, options: { max: 3, port: relay.port } }, async (db) => {
        await warm(db, 2)
        const lease = await db.acquire()
        await lease.query("SELECT 'remember this one'")
        links[0]?.stall()
        const { error } = await outcome(lease.query('SELECT 1', [], { timeoutMs: 300 }))
        expect(error).toMatchObject({ code: 'QUERY_TIMEOUT' })
        lease.release()
        // Its server never saw the statement, or nobody will ever hear its reply: either way there is nothing to wait for.
        await until('its slot is free', () => db.stats().ghost === 0 || placesOf(db), 8_000)
        const leases = await crowd(3, () => db.acquire({ timeoutMs: 3_000 }))
        expect(tally(leases)).toEqual({ ok: 3 })
        for (const { value } of leases) value?.release()
        relay.resume()
      })
    })

    test('in a black hole acquire keeps its deadline, and the pool recovers when it is over', async () => {
      const account = await server().createAccount()
      await using relay = await startRelay(server())
      const options = { max: 4, port: relay.port, trustMs: 0, pingAfterMs: 50, connectTimeoutMs: 1_500 }
      await withPool({ server: server(), account, driver, options }, async (db) => {
        await warm(db, 4)
        await sleep(100)
        relay.stall()
        using lag = watchLag()
        const outcomes = await Promise.all(
          [120, 400, 700, 1_100, 1_600].map((timeoutMs) =>
            outcome(db.acquire({ timeoutMs })).then((one) => ({ ...one, timeoutMs })),
          ),
        )
        for (const { error, ms, timeoutMs } of outcomes) {
          expect(error).toMatchObject({ code: 'POOL_ACQUIRE_TIMEOUT', effect: 'none' })
          expect(ms).toBeGreaterThan(timeoutMs - 100)
          expect(ms).toBeLessThan(timeoutMs + 100 + lag.worst())
        }
        relay.resume()
        const after = await outcome(db.query('SELECT 1'))
        expect(after.error).toBeUndefined()
        expect(after.ms).toBeLessThan(4_000)
        expect(tally(await crowd(10, () => db.query('SELECT 1')))).toEqual({ ok: 10 })
      })
    })

    test('requests that arrive while no reply comes back: deadlines are kept, and the pool recovers', async () => {
      const account = await server().createAccount()
      await using relay = await startRelay(server())
      const options = { max: 3, port: relay.port, trustMs: 0, pingAfterMs: 50, connectTimeoutMs: 1_000 }
      await withPool({ server: server(), account, driver, options }, async (db) => {
        await db.query('CREATE TABLE t (id INT PRIMARY KEY)')
        await warm(db, 3)
        const lease = await db.acquire()
        relay.swallowReplies()
        using lag = watchLag()
        const [write, waiting] = await Promise.all([
          outcome(lease.query('INSERT INTO t VALUES (1)', [], { timeoutMs: 400 })),
          outcome(db.query('SELECT 1', [], { timeoutMs: 600 })),
        ])
        expect(write.error).toMatchObject({ code: 'QUERY_TIMEOUT', effect: 'unknown' })
        expect(write.ms).toBeLessThan(500 + lag.worst())
        expect(waiting.error?.code).toMatch(/POOL_ACQUIRE_TIMEOUT|QUERY_TIMEOUT/)
        expect(waiting.ms).toBeLessThan(700 + lag.worst())
        lease.release()
        relay.resume()
        const after = await outcome(db.query('SELECT id FROM t'))
        expect(after.error).toBeUndefined()
        expect(after.ms).toBeLessThan(5_000)
        await until('no ghost is left', () => db.stats().ghost === 0 || placesOf(db))
        expect(tally(await crowd(9, () => db.query('SELECT 1')))).toEqual({ ok: 9 })
      })
    })

    test('a drain in a black hole is over by its deadline', async () => {
      const account = await server().createAccount()
      await using relay = await startRelay(server())
      const db = createPool({ ...optionsFor(server(), account, driver), max: 4, port: relay.port })
      await warm(db, 3)
      const lease = await db.acquire()
      relay.stall()
      const running = outcome(lease.query('SELECT 1'))
      using lag = watchLag()
      const drained = await outcome(db.drain({ timeoutMs: 1_500 }))
      expect(drained.error).toBeUndefined()
      expect(drained.ms).toBeLessThan(1_600 + lag.worst())
      expect((await running).error).toMatchObject({ code: 'SESSION_LOST' })
      relay.resume()
      await nothingLeft(server(), account, db)
    })

    test('half a handshake: connectTimeoutMs and acquireTimeoutMs are kept', async () => {
      const account = await server().createAccount()
      await using relay = await startRelay(server())
      relay.greetNever()
      await withPool(
        {
          server: server(),
          account,
          driver,
          options: { port: relay.port, connectTimeoutMs: 300, acquireTimeoutMs: 1_500 },
        },
        async (db) => {
          using lag = watchLag()
          const outcomes = await crowd(20, () => db.query('SELECT 1'))
          expect(tally(outcomes)).toEqual({ POOL_ACQUIRE_TIMEOUT: 20 })
          for (const { error, ms } of outcomes) {
            expect(ms).toBeGreaterThan(1_400)
            expect(ms).toBeLessThan(1_600 + lag.worst())
            expect(error).toMatchObject({ effect: 'none', cause: { code: 'CONNECT_TIMEOUT' } })
          }
          expect(relay.accepted).toBeGreaterThan(1)
          expect(relay.accepted).toBeLessThan(8)
          await until(
            'nothing of the attempts is left',
            () => db.stats().opening > 0 || relay.open === 0 || relay.open,
            2_000,
          )
          const impatient = await outcome(db.acquire({ timeoutMs: 150 }))
          expect(impatient.error).toMatchObject({ code: 'POOL_ACQUIRE_TIMEOUT' })
          expect(impatient.ms).toBeLessThan(250 + lag.worst())
          relay.resume()
          const after = await outcome(db.query('SELECT 1'))
          expect(after.error).toBeUndefined()
        },
      )
    })

    test('a server that drops every dial is dialled a few times for 200 queries', async () => {
      const account = await server().createAccount()
      await using relay = await startRelay(server())
      relay.dropDials()
      await withPool({ server: server(), account, driver, options: { max: 10, port: relay.port } }, async (db) => {
        const waiting = crowd(200, () => db.query('SELECT 1'))
        await sleep(1_500)
        expect(relay.accepted).toBeLessThan(15)
        expect(db.stats().waiting).toBe(200)
        relay.resume()
        const outcomes = await waiting
        expect(tally(outcomes)).toEqual({ ok: 200 })
        expect(relay.accepted).toBeLessThan(30)
      })
    })

    test('all connections are reset, or cut, at once: idempotent work goes on', async () => {
      const account: Account = await server().createAccount()
      await using relay = await startRelay(server())
      await withPool({ server: server(), account, driver, options: { max: 5, port: relay.port } }, async (db) => {
        using load = keepBusy(8, () => db.query('SELECT SLEEP(0.002)', [], { idempotent: true }))
        for (let round = 0; round < 10; round++) {
          await sleep(60)
          if (round % 2) relay.reset()
          else relay.cut()
        }
        await sleep(100)
        expect(await load.stop()).toEqual({ ok: load.outcomes.length })
      })
    })
  },
)
