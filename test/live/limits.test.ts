import { inspect } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Connection } from 'mysql2/promise'
import { createPool, type Pool, type PoolOptions } from '../../src/index.js'
import { startScript } from '../../src/testing/process.js'
import { startRelay } from '../../src/testing/relay.js'
import { startServer, type Account, type ServerKind, type TestServer } from '../../src/testing/server.js'
import {
  crowd,
  eachDriver,
  keepBusy,
  nothingLeft,
  optionsFor,
  outcome,
  sleep,
  stranger,
  tally,
  until,
  watchLag,
  withPool,
  type DriverName,
} from './support.js'

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

describe.concurrent.each(eachDriver())('at the limit of an account, on $kind with $driver', ({ kind, driver }) => {
  const server = serverOf(kind)
  const many = kind === 'mariadb-10.11' ? 200 : 60
  const aged = many / 2 // a tenth of a second is the shortest life there is

  test('50 queries of a pool of 10 at a limit of 3 succeed on few dials, and an idle pool dials nobody', async () => {
    const account = await server().createAccount({ maxUserConnections: 3 })
    await using relay = await startRelay(server())
    await withPool({ server: server(), account, driver, options: { max: 10, port: relay.port } }, async (db) => {
      const outcomes = await crowd(50, (index) => db.query('SELECT ? AS value, SLEEP(0.02) AS slept', [index]))
      expect(tally(outcomes)).toEqual({ ok: 50 })
      expect(outcomes.map(({ value }) => Number(value?.rows[0].value))).toEqual(
        Array.from({ length: 50 }, (_, index) => index),
      )
      expect(relay.accepted).toBeLessThanOrEqual(3)
      expect(db.stats()).toMatchObject({ ceiling: 3, waiting: 0, total: { refused: 0 } })
      await sleep(2_000)
      expect(relay.accepted).toBeLessThanOrEqual(3)
    })
  })

  test('the limits are learned in one round trip', async () => {
    const account = await server().createAccount({ maxUserConnections: 7 })
    const questions: string[] = []
    await using relay = await startRelay(server(), {
      onRequest: (chunk) => void (chunk[3] === 0 && chunk[4] === 3 && questions.push(chunk.toString('latin1', 5))),
    })
    await withPool({ server: server(), account, driver, options: { port: relay.port } }, async (db) => {
      expect(db.limits()).toBeUndefined()
      await db.query('SELECT 42')
      expect(questions).toHaveLength(2)
      const [told] = await server().query<Record<string, number>>(
        'SELECT @@max_connections mc, @@wait_timeout wt, @@net_write_timeout nwt, @@net_read_timeout nrt, @@max_prepared_stmt_count ps, @@global.max_allowed_packet map',
      )
      expect(db.limits()).toMatchObject({
        server: { flavour: server().flavour },
        maxUserConnections: 7,
        maxConnections: told?.['mc'],
        netWriteTimeoutMs: Number(told?.['nwt']) * 1000,
        netReadTimeoutMs: Number(told?.['nrt']) * 1000,
        maxPreparedStmtCount: told?.['ps'],
        maxAllowedPacket: told?.['map'],
        waitTimeoutMs: 28_800_000,
      })
      expect(db.limits()?.server.version.startsWith(server().version)).toBe(true)
    })
  })

  test(`${aged} sessions retired for their age at the limit, under load: no 1226 reaches anybody`, async () => {
    const account = await server().createAccount({ maxUserConnections: 3 })
    await withPool({ server: server(), account, driver, options: { max: 10, maxLifetimeMs: 100 } }, async (db) => {
      const deadline = performance.now() + 25_000
      using load = keepBusy(8, () => db.query('SELECT 1, SLEEP(0.002)'))
      while (db.stats().total.retired < aged && performance.now() < deadline) await sleep(10)
      const { ok, ...failed } = await load.stop()
      expect(failed).toEqual({})
      expect(ok).toBeGreaterThan(aged)
      expect(db.stats().total.retired).toBeGreaterThanOrEqual(aged)
      // We close before we open: the server may be late by milliseconds, but that is the exception.
      expect(db.stats().total.refused).toBeLessThan(20)
    })
  })

  test(`${many} sessions killed at the limit, under load: no 1226 reaches anybody`, async () => {
    const account = await server().createAccount({ maxUserConnections: 3 })
    await withPool({ server: server(), account, driver, options: { max: 10 } }, async (db) => {
      const killed: number[] = []
      const deadline = performance.now() + 25_000
      // Not SLEEP: MariaDB takes up to two seconds to kill one among many, and its process list waits for that.
      using load = keepBusy(8, async () => {
        await db.query('SELECT COUNT(*) FROM information_schema.SCHEMATA', [], { idempotent: true })
        await sleep(1)
      })
      while (killed.length < many && performance.now() < deadline) {
        const [victim] = (await server().sessions(account.user)).sort(() => Math.random() - 0.5)
        if (victim) {
          await server()
            .kill(victim.id)
            .then(
              () => killed.push(victim.id),
              () => {},
            )
        }
        await sleep(10)
      }
      const { ok, ...failed } = await load.stop()
      expect(failed).toEqual({})
      expect(ok).toBeGreaterThan(many / 2)
      expect(killed.length).toBeGreaterThanOrEqual(many)
    })
  })

  test('what timed out at the limit is ended on the server; until then its slot is a ghost, and the others go on', async () => {
    const account = await server().createAccount({ maxUserConnections: 2 })
    await withPool({ server: server(), account, driver, options: { max: 10 } }, async (db) => {
      await db.query('CREATE TABLE t (id INT PRIMARY KEY, n INT) ENGINE=InnoDB')
      await db.query('INSERT INTO t VALUES (1, 0)')
      const other = await server().createAccount({ database: account.database })
      const locker = await stranger(other)
      await locker.query('BEGIN')
      await locker.query('SELECT * FROM t WHERE id = 1 FOR UPDATE')

      using others = keepBusy(3, () => db.query('SELECT SLEEP(0.005)'))
      const cut = (sql: string) => db.use((lease) => outcome(lease.query(sql, [], { timeoutMs: 300 })))
      const late = await cut('UPDATE t SET n = n + 1 WHERE id = 1')
      expect(late.error).toMatchObject({ code: 'QUERY_TIMEOUT', effect: 'unknown' })
      expect(late.ms).toBeLessThan(2_000)
      const slept = await outcome(db.query('SELECT SLEEP(25)', [], { timeoutMs: 2_000 }))
      expect(slept.error).toMatchObject({ code: 'QUERY_TIMEOUT' })
      expect(db.stats().ghost).toBeGreaterThanOrEqual(1)
      await until('the ghosts are laid', () => db.stats().ghost === 0 || db.stats(), 4_000)
      const statements = (await server().sessions(account.user)).map(({ info }) => info ?? '')
      expect(statements.filter((sql) => /UPDATE|SLEEP\(25\)/.test(sql))).toEqual([])
      const { ok, ...failed } = await others.stop()
      expect(failed).toEqual({})
      expect(ok).toBeGreaterThan(10)

      await locker.query('COMMIT')
      await sleep(200)
      const { rows } = await db.query('SELECT n FROM t WHERE id = 1')
      expect(rows[0].n, 'the statement that timed out is not done later').toBe(0)
      locker.destroy()
    })
  })

  test('a pool of one whose statement timed out is soon a pool of one again, and the statement is ended', async () => {
    const account = await server().createAccount()
    await withPool({ server: server(), account, driver, options: { max: 1 } }, async (db) => {
      await db.query('SELECT 1')
      const took: number[] = []
      for (let round = 0; round < 3; round++) {
        const late = await outcome(db.query('SELECT SLEEP(25)', [], { timeoutMs: 400 }))
        expect(late.error).toMatchObject({ code: 'QUERY_TIMEOUT' })
        const next = await outcome(db.query('SELECT 1 AS one'))
        expect(next.error).toBeUndefined()
        took.push(next.ms)
      }
      expect(took.sort((a, b) => a - b)[1], 'median').toBeLessThan(3_000)
      await until('nothing of it runs', async () => {
        const rows = await server().sessions(account.user)
        return rows.filter(({ info }) => info?.includes('SLEEP(25)')).length === 0 || rows
      })
      expect(db.stats().held).toBe(1)
    })
  })
})

describe.concurrent.each(eachDriver(['mariadb-10.11']))(
  'limits and others, on $kind with $driver',
  ({ kind, driver }) => {
    const server = serverOf(kind)

    test('slots that others hold are waited for', async () => {
      const account = await server().createAccount({ maxUserConnections: 3 })
      const others = await Promise.all([stranger(account), stranger(account), stranger(account)])
      await using relay = await startRelay(server())
      await withPool({ server: server(), account, driver, options: { max: 10, port: relay.port } }, async (db) => {
        const queries = crowd(20, () => db.query('SELECT SLEEP(0.01)'))
        await sleep(700)
        expect(db.stats()).toMatchObject({ waiting: 20, idle: 0, leased: 0 })
        const dialsInVain = relay.accepted
        expect(dialsInVain, 'one probe at a time, backed off').toBeLessThan(20)
        await others[0].end()
        const outcomes = await queries
        expect(tally(outcomes)).toEqual({ ok: 20 })
        expect(Math.max(...outcomes.map(({ ms }) => ms)), 'soon after the slot came free').toBeLessThan(4_000)
        expect(relay.accepted - dialsInVain).toBeLessThan(12)
        await Promise.all([others[1].end(), others[2].end()])
        // Both drop-outs are found in time, too: the ceiling rises again.
        await crowd(6, () => db.query('SELECT SLEEP(0.5)'))
      })
    })

    test('slots that others do not give back: the deadline, with the limit by name', async () => {
      const account = await server().createAccount({ maxUserConnections: 2 })
      const others = await Promise.all([stranger(account), stranger(account)])
      await withPool({ server: server(), account, driver, options: { max: 10, acquireTimeoutMs: 900 } }, async (db) => {
        using lag = watchLag()
        const outcomes = await crowd(10, () => db.query('SELECT 1'))
        expect(tally(outcomes)).toEqual({ POOL_ACQUIRE_TIMEOUT: 10 })
        for (const { error, ms } of outcomes) {
          expect(ms).toBeGreaterThan(800)
          expect(ms).toBeLessThan(1_000 + lag.worst())
          expect(error).toMatchObject({ name: 'HoldfastError', effect: 'none', cause: { errno: 1226 } })
          expect(error?.message).toMatch(/max_user_connections/)
          expect(error?.message).toMatch(/1226/)
          expect(error?.message).toMatch(/within 900 ms/)
        }
        await Promise.all(others.map((other) => other.end()))
        expect((await db.query('SELECT 7 AS seven')).rows[0].seven).toBe(7)
      })
    })

    test('a lease that holds the last slot is named to those who waited in vain', async () => {
      const account = await server().createAccount({ maxUserConnections: 1 })
      await withPool({ server: server(), account, driver, options: { acquireTimeoutMs: 1_500 } }, async (db) => {
        const lease = await db.acquire()
        const { error } = await outcome(db.query('SELECT 1'))
        expect(error).toMatchObject({ code: 'POOL_ACQUIRE_TIMEOUT', effect: 'none' })
        expect(error?.message).toMatch(/ceiling 1 learned from max_user_connections/)
        expect(error?.message).toMatch(/leased 1/)
        expect(error?.message).toMatch(/limits\.test\.ts:\d+/)
        lease.release()
      })
    })

    test('a block that needs a second session of a full account is told who holds the first', async () => {
      const account = await server().createAccount({ maxUserConnections: 1 })
      await withPool({ server: server(), account, driver }, async (db) => {
        const { error } = await outcome(db.transaction(() => db.query('SELECT 1', [], { timeoutMs: 300 })))
        expect(error).toMatchObject({ code: 'POOL_ACQUIRE_TIMEOUT' })
        expect(error?.message).toMatch(/the oldest lease was taken at .*limits\.test\.ts:\d+/)
        expect(db.stats()).toMatchObject({ leased: 0, waiting: 0 })
      })
    })

    test('minIdle does not knock at a full account, or with a wrong password, again and again', async () => {
      const account = await server().createAccount({ maxUserConnections: 1 })
      const other = await stranger(account)
      await Promise.all(
        [{}, { password: 'wrong' }].map(async (wrong) => {
          await using relay = await startRelay(server())
          const db = createPool({ ...optionsFor(server(), account, driver), port: relay.port, minIdle: 2, ...wrong })
          await sleep(3_000)
          expect(relay.accepted, inspect(wrong)).toBeLessThan(15)
          const before = relay.accepted
          await sleep(2_000)
          expect(relay.accepted - before, `later, ${inspect(wrong)}`).toBeLessThanOrEqual(6)
          await db.drain()
        }),
      )
      await other.end()
    })

    test('all slots of a full account are ghosts: who waits is served when the server lets go', async () => {
      const account = await server().createAccount({ maxUserConnections: 2 })
      await withPool({ server: server(), account, driver, options: { max: 10 } }, async (db) => {
        const late = await crowd(2, () => db.query('SELECT SLEEP(3)', [], { timeoutMs: 200 }))
        expect(tally(late)).toEqual({ QUERY_TIMEOUT: 2 })
        const next = await crowd(10, () => db.query('SELECT 1'))
        expect(tally(next)).toEqual({ ok: 10 })
        expect(Math.max(...next.map(({ ms }) => ms))).toBeLessThan(5_000)
      })
    })

    test('200 leases in a row that are released dirty at a limit of 1', async () => {
      const account = await server().createAccount({ maxUserConnections: 1 })
      await withPool({ server: server(), account, driver }, async (db) => {
        for (let index = 0; index < 200; index++) {
          await db.use(async (lease) => {
            const { rows } = await lease.query('SELECT @left AS was')
            expect(rows[0].was).toBeNull()
            await lease.query('SET @left = 1')
          })
        }
        expect(db.stats().total).toMatchObject({ refused: 0, opened: 1 })
      })
    })

    test('an hourly limit is never dialled against: what is open serves all, beyond its lifetime', async () => {
      const account = await server().createAccount({ maxConnectionsPerHour: 3 })
      await using relay = await startRelay(server())
      const options: PoolOptions = { max: 10, port: relay.port, maxLifetimeMs: 300, idleTimeoutMs: 400 }
      await withPool({ server: server(), account, driver, options }, async (db) => {
        expect(tally(await crowd(40, () => db.query('SELECT SLEEP(0.01)')))).toEqual({ ok: 40 })
        const dials = relay.accepted
        expect(dials, 'those that were under way when the first was refused').toBeLessThanOrEqual(10)
        const ids = async (): Promise<Set<number>> => {
          const outcomes = await crowd(12, () => db.query('SELECT CONNECTION_ID() AS id, SLEEP(0.05)'))
          expect(tally(outcomes)).toEqual({ ok: 12 })
          return new Set(outcomes.map(({ value }) => Number(value?.rows[0].id)))
        }
        const before = await ids()
        expect(before.size).toBe(3)
        for (let round = 0; round < 4; round++) {
          await sleep(400)
          expect(await ids()).toEqual(before)
        }
        expect(relay.accepted).toBe(dials)
      })
    })

    test('with nothing open an hourly limit fails at once, with its name, and the next query does not dial', async () => {
      const account = await server().createAccount({ maxConnectionsPerHour: 1 })
      await (await stranger(account)).end()
      await using relay = await startRelay(server())
      await withPool({ server: server(), account, driver, options: { port: relay.port } }, async (db) => {
        const outcomes = await crowd(30, () => db.query('SELECT 1'))
        expect(tally(outcomes)).toEqual({ CONNECT_FAILED: 30 })
        expect(Math.max(...outcomes.map(({ ms }) => ms))).toBeLessThan(1_000)
        expect(outcomes[0]?.error).toMatchObject({ effect: 'none', cause: { errno: 1226 } })
        expect(outcomes[0]?.error?.message).toMatch(/max_connections_per_hour/)
        expect(relay.accepted).toBe(1)
        const next = await crowd(30, () => db.query('SELECT 1'))
        expect(tally(next)).toEqual({ CONNECT_FAILED: 30 })
        await sleep(1_000)
        expect(relay.accepted).toBe(1)
      })
    })

    test('max_queries_per_hour is the answer to the statement: told at once, not hung upon, not dialled about', async () => {
      const account = await server().createAccount({ maxQueriesPerHour: 12 })
      await using relay = await startRelay(server())
      await withPool({ server: server(), account, driver, options: { port: relay.port, max: 2 } }, async (db) => {
        const outcomes = []
        for (let index = 0; index < 20; index++) outcomes.push(await outcome(db.query('SELECT 1')))
        expect(outcomes[0]?.error).toBeUndefined()
        const last = outcomes.at(-1)
        expect(last?.error).toMatchObject({ errno: 1226 })
        expect(String(last?.error?.message)).toMatch(/max_quer|max_questions/)
        expect(Math.max(...outcomes.map(({ ms }) => ms))).toBeLessThan(1_000)
        expect(relay.accepted).toBe(1)
      })
    })

    test('the limit is raised: the pool grows into it as its sessions are renewed; lowered: it shrinks', async () => {
      const account = await server().createAccount({ maxUserConnections: 2 })
      await withPool({ server: server(), account, driver, options: { max: 6, maxLifetimeMs: 400 } }, async (db) => {
        const busy = (): Promise<unknown> =>
          crowd(6, () => db.query('SELECT SLEEP(0.02)')).then((all) => expect(tally(all)).toEqual({ ok: 6 }))
        await busy()
        expect(db.stats().ceiling).toBe(2)
        await server().query(`ALTER USER ? WITH MAX_USER_CONNECTIONS 5`, [account.user])
        await until('it grows to 5', async () => {
          await busy()
          return db.stats().held === 5 || db.stats()
        })
        expect(db.stats().ceiling).toBe(5)
        await server().query(`ALTER USER ? WITH MAX_USER_CONNECTIONS 2`, [account.user])
        await until('it shrinks to 2', async () => {
          await busy()
          return (db.stats().held === 2 && db.stats().ceiling === 2) || db.stats()
        })
        await busy()
      })
    })

    test('the limit is lowered below what is held, and lifted altogether', async () => {
      const account = await server().createAccount({ maxUserConnections: 5 })
      await withPool({ server: server(), account, driver, options: { max: 8, maxLifetimeMs: 500 } }, async (db) => {
        await crowd(8, () => db.query('SELECT SLEEP(0.05)'))
        await server().query(`ALTER USER ? WITH MAX_USER_CONNECTIONS 1`, [account.user])
        using working = keepBusy(8, () => db.query('SELECT SLEEP(0.005)'))
        await until('one is left', () => (db.stats().held === 1 && db.stats().ceiling === 1) || db.stats())
        await server().query(`ALTER USER ? WITH MAX_USER_CONNECTIONS 0`, [account.user])
        await until('all are there', () => db.stats().held === 8 || db.stats(), 8_000)
        const { ok, ...failed } = await working.stop()
        expect(failed).toEqual({})
        expect(ok).toBeGreaterThan(50)
      })
    })
  },
)

describe.concurrent.each(eachDriver(['mariadb-10.11', 'mysql-9.7']))(
  'pools that share an account, on $kind with $driver',
  ({ kind, driver }) => {
    const server = serverOf(kind)
    const make = (account: Account, options: PoolOptions): Pool =>
      createPool({ ...optionsFor(server(), account, driver), ...options })

    test('two pools of one process share its limit: both get on, and nobody is refused', async () => {
      const account = await server().createAccount({ maxUserConnections: 3 })
      const [a, b] = [make(account, { max: 10, name: 'a' }), make(account, { max: 10, name: 'b' })]
      const done: string[] = []
      const work = (db: Pool, name: string) =>
        crowd(60, () => db.query('SELECT SLEEP(0.01)').then(() => done.push(name)))
      const [first, second] = await Promise.all([work(a, 'a'), work(b, 'b')])
      expect(tally([...first, ...second])).toEqual({ ok: 120 })
      const half = done.slice(0, 60)
      for (const name of ['a', 'b'])
        expect(half.filter((one) => one === name).length, `${name} in the first half`).toBeGreaterThan(8)
      await nothingLeft(server(), account, a, b)
    })

    test('an idle pool gives way at once to the other pool of its process', async () => {
      const account = await server().createAccount({ maxUserConnections: 3 })
      const [a, b] = [make(account, { max: 10, name: 'a' }), make(account, { max: 10, name: 'b' })]
      const slowest: number[] = []
      for (let round = 0; round < 5; round++) {
        for (const db of [a, b]) {
          const outcomes = await crowd(6, () => db.query('SELECT SLEEP(0.01)'))
          expect(tally(outcomes)).toEqual({ ok: 6 })
          slowest.push(Math.max(...outcomes.map(({ ms }) => ms)))
        }
      }
      expect(slowest.sort((x, y) => x - y)[5]).toBeLessThan(500)
      expect(a.stats().total.refused + b.stats().total.refused).toBe(0)
      await nothingLeft(server(), account, a, b)
    })

    test.each(['a near server', 'a slow network'])(
      'a busy pool gives way to the other pool of its process as its leases come home: %s',
      async (network) => {
        const account = await server().createAccount({ maxUserConnections: 1 })
        // Opening a session takes longer then than a pool is left with one that others want.
        await using relay = await startRelay(server(), { delayMs: network === 'a slow network' ? 20 : 0 })
        const [a, b] = [make(account, { name: 'a', port: relay.port }), make(account, { name: 'b', port: relay.port })]
        using busy = keepBusy(4, () => a.query('SELECT SLEEP(0.02)'))
        await until('a is busy', () => a.stats().leased === 1 && a.stats().waiting > 0)
        const guests = []
        for (let index = 0; index < 5; index++) guests.push(await outcome(b.query('SELECT 1')))
        const between = busy.outcomes.length
        const { ok: _, ...failed } = await busy.stop()
        expect(tally(guests)).toEqual({ ok: 5 })
        expect(guests.map(({ ms }) => ms).sort((x, y) => x - y)[2], 'median wait of the guests').toBeLessThan(1_500)
        expect(between, 'a gets on as well').toBeGreaterThan(0)
        expect(failed).toEqual({})
        await nothingLeft(server(), account, a, b)
      },
    )

    const PROGRAM = `
    import { createPool } from './dist/index.js'
    const { options, queries } = JSON.parse(process.argv[1])
    const db = createPool(options)
    const count = {}
    let longest = 0
    await Promise.all(Array.from({ length: queries }, async () => {
      const began = performance.now()
      const key = await db.query('SELECT SLEEP(0.02)').then(() => 'ok', (error) => error.code + ' ' + error.message)
      count[key] = (count[key] ?? 0) + 1
      longest = Math.max(longest, performance.now() - began)
    }))
    process.send({ count, longest })
    process.once('message', async () => { await db.drain(); process.send(db.stats()); process.disconnect() })
  `

    test('three programs with a pool of 10 each at a limit of 3, and a late-comer: all their queries succeed', async () => {
      const account = await server().createAccount({ maxUserConnections: 3 })
      const options = { ...optionsFor(server(), account, driver), max: 10 }
      const start = () => startScript(PROGRAM, { args: [JSON.stringify({ options, queries: 30 })] })
      const programs = [start(), start(), start()]
      try {
        for (const program of programs) expect(await program.next(15_000)).toMatchObject({ count: { ok: 30 } })
        // They live on, idle: what they hold goes back within a second.
        const last = start()
        programs.push(last)
        const { count, longest } = await last.next<{ count: object; longest: number }>(15_000)
        expect(count).toEqual({ ok: 30 })
        expect(longest).toBeLessThan(4_000)
        for (const program of programs) {
          program.send({})
          expect(await program.next()).toMatchObject({ held: 0 })
          expect(await program.exited).toEqual({ code: 0, signal: null })
        }
        await server().untilNoSessions(account.user)
      } finally {
        for (const program of programs) await program.kill()
      }
    })

    test('idle sessions of a full account go back within a second, so that others can connect', async () => {
      const account = await server().createAccount({ maxUserConnections: 3 })
      await withPool({ server: server(), account, driver, options: { max: 10 } }, async (db) => {
        await crowd(10, () => db.query('SELECT SLEEP(0.01)'))
        expect(db.stats().held).toBe(3)
        await expect(stranger(account)).rejects.toMatchObject({ errno: 1226 })
        const began = performance.now()
        await until('there is room', () =>
          stranger(account).then(
            (other) => (other.destroy(), true),
            () => false,
          ),
        )
        expect(performance.now() - began).toBeLessThan(1_500)
      })
    })
  },
)

describe.concurrent.each(eachDriver(['mariadb-10.11', 'mysql-9.7']))(
  'a full server, on $kind with $driver',
  ({ kind, driver }) => {
    const room = driver === 'mysql2' ? 10 : 11 // a server for each: they are full in turn
    const server = serverOf(kind, `--max-connections=${room}`)

    test('1040 is waited for, and named when it lasts', async () => {
      const account = await server().createAccount()
      const others: Connection[] = []
      for (;;) {
        const other = await stranger(account).catch(() => undefined)
        if (other === undefined) break
        others.push(other)
      }
      expect(others.length).toBeGreaterThan(5)
      await using relay = await startRelay(server())
      await withPool({ server: server(), account, driver, options: { max: 20, port: relay.port } }, async (db) => {
        const inVain = await crowd(30, () => db.acquire({ timeoutMs: 1_000 }))
        expect(tally(inVain)).toEqual({ POOL_ACQUIRE_TIMEOUT: 30 })
        expect(inVain[0]?.error).toMatchObject({ effect: 'none', cause: { errno: 1040 } })
        expect(inVain[0]?.error?.message).toMatch(/1040/)
        expect(inVain[0]?.error?.message).toMatch(/Too many connections/)
        expect(relay.accepted).toBeLessThan(20)

        const waiting = crowd(30, () => db.query('SELECT SLEEP(0.005)'))
        await sleep(100)
        await Promise.all(others.splice(0, 3).map((other) => other.end()))
        expect(tally(await waiting)).toEqual({ ok: 30 })
        // Only now does it know max_connections; the rest still belongs to others.
        expect(db.limits()?.maxConnections).toBe(room)
        await Promise.all(others.splice(0).map((other) => other.end()))
        await sleep(100)
        const after = await crowd(100, () => db.query('SELECT SLEEP(0.01)'))
        expect(tally(after)).toEqual({ ok: 100 })
      })
    })
  },
)

describe.concurrent.each(eachDriver(['mariadb-10.11']))(
  'the limit for every account (1203), on $kind with $driver',
  ({ kind, driver }) => {
    const server = serverOf(kind, '--max-user-connections=4')

    test('it is learned, waited for and named', async () => {
      const account = await server().createAccount()
      const others = await Promise.all([1, 2, 3, 4].map(() => stranger(account)))
      await withPool({ server: server(), account, driver, options: { max: 10, acquireTimeoutMs: 800 } }, async (db) => {
        const inVain = await crowd(5, () => db.query('SELECT 1'))
        expect(tally(inVain)).toEqual({ POOL_ACQUIRE_TIMEOUT: 5 })
        expect(inVain[0]?.error).toMatchObject({ cause: { errno: 1203 } })
        expect(inVain[0]?.error?.message).toMatch(/1203/)
        await others[0]?.end()
        expect(tally(await crowd(10, () => db.query('SELECT SLEEP(0.01)')))).toEqual({ ok: 10 })
        expect(db.limits()).toMatchObject({ maxUserConnections: 4 })
        await Promise.all(others.map((other) => other.end().catch(() => {})))
      })
    })
  },
)

/** What the server refuses for good, how it is mended, and the number of the refusal. */
interface Denial {
  readonly what: string
  readonly errno: number
  readonly options: (account: Account) => PoolOptions
  readonly mend: (server: TestServer, account: Account) => Promise<unknown>
}

const DENIALS: Denial[] = [
  {
    what: 'a wrong password (1045)',
    errno: 1045,
    options: () => ({ password: 'changed tomorrow' }),
    mend: (server, { user }) => server.query('ALTER USER ? IDENTIFIED BY ?', [user, 'changed tomorrow']),
  },
  {
    what: 'a database that does not exist (1049)',
    errno: 1049,
    options: ({ user }) => ({ database: `${user}_later` }),
    mend: (server, { user }) => server.query('CREATE DATABASE ??', [`${user}_later`]),
  },
  {
    what: 'a database without a right to it (1044)',
    errno: 1044,
    options: ({ user }) => ({ database: `${user}_secret` }),
    mend: (server, { user }) => server.query('GRANT ALL ON ??.* TO ?', [`${user}_secret`, user]),
  },
]

describe.concurrent.each(eachDriver())(
  'refusals that waiting cannot mend, on $kind with $driver',
  ({ kind, driver }: { kind: ServerKind; driver: DriverName }) => {
    const server = serverOf(kind)

    test.each(DENIALS)(
      '$what fails at once, on few dials, and heals when it is mended',
      async ({ errno, options, mend }) => {
        const account = await server().createAccount()
        if (errno === 1049) await server().query('GRANT ALL ON ??.* TO ?', [`${account.user}_later`, account.user])
        if (errno === 1044) await server().query('CREATE DATABASE ??', [`${account.user}_secret`])
        await using relay = await startRelay(server())
        await withPool(
          { server: server(), account, driver, options: { ...options(account), port: relay.port } },
          async (db) => {
            const outcomes = await crowd(50, () => db.query('SELECT 1'))
            expect(tally(outcomes)).toEqual({ CONNECT_FAILED: 50 })
            // Far below the deadline. (A GRANT of another test holds up every login of the server.)
            expect(Math.max(...outcomes.map(({ ms }) => ms))).toBeLessThan(6_000)
            expect(outcomes[0]?.error).toMatchObject({ effect: 'none', cause: { errno } })
            expect(outcomes[0]?.error?.message).toMatch(String(errno))
            expect(relay.accepted).toBeLessThanOrEqual(2)
            // No login storm while it lasts, either: accounts get locked for that.
            const next = await outcome(db.query('SELECT 1'))
            expect(next.error?.code).toBe('CONNECT_FAILED')
            expect(next.ms).toBeLessThan(6_000)
            expect(relay.accepted).toBeLessThanOrEqual(4)

            await mend(server(), account)
            const healed = await outcome(db.query('SELECT 1'))
            expect(healed.error).toBeUndefined()
            expect(healed.ms).toBeLessThan(6_000)
            expect(tally(await crowd(20, () => db.query('SELECT 1')))).toEqual({ ok: 20 })
          },
        )
      },
    )

    test('an account that is locked (4151, 3118) fails at once, and heals when it is unlocked', async () => {
      const account = await server().createAccount()
      await server().query('ALTER USER ? ACCOUNT LOCK', [account.user])
      await withPool({ server: server(), account, driver }, async (db) => {
        const outcomes = await crowd(20, () => db.query('SELECT 1'))
        expect(tally(outcomes)).toEqual({ CONNECT_FAILED: 20 })
        expect(outcomes[0]?.error).toMatchObject({ cause: { errno: server().flavour === 'mysql' ? 3118 : 4151 } })
        await server().query('ALTER USER ? ACCOUNT UNLOCK', [account.user])
        expect(tally(await crowd(20, () => db.query('SELECT 1')))).toEqual({ ok: 20 })
      })
    })

    test('a password that is refused later does not fail those whom an open session can serve', async () => {
      const account = await server().createAccount()
      await withPool({ server: server(), account, driver, options: { max: 3 } }, async (db) => {
        await using lease = await db.acquire()
        await server().query('ALTER USER ? IDENTIFIED BY ?', [account.user, 'another'])
        const waiting = crowd(5, () => db.query('SELECT 1'))
        await sleep(300)
        lease.release()
        expect(tally(await waiting)).toEqual({ ok: 5 })
      })
    })
  },
)
