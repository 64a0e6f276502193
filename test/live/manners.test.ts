import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { getEventListeners } from 'node:events'
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createPool, HoldfastError, type Events, type Lease, type Pool, type PoolOptions } from '../../src/index.js'
import { startProcess, startScript, type TestProcess } from '../../src/testing/process.js'
import { startRelay } from '../../src/testing/relay.js'
import { startServer, type Account, type TestServer } from '../../src/testing/server.js'
import {
  addsUp,
  crowd,
  eachDriver,
  listenForTrouble,
  nothingLeft,
  optionsFor,
  outcome,
  placesOf,
  sleep,
  tally,
  until,
  watchLag,
  withPool,
  type DriverName,
} from './support.js'

let server: TestServer
const trouble = listenForTrouble()

beforeAll(async () => {
  server = await startServer('mariadb-10.11')
})
afterAll(async () => {
  await sleep(50)
  trouble.stop()
  await server[Symbol.asyncDispose]()
  expect(trouble.seen.filter((one) => !one.includes('HoldfastLeak'))).toEqual([])
})

const NOWHERE: PoolOptions = { host: '127.0.0.1', port: 9, user: 'nobody', database: 'shop' }

function codeOf(action: () => unknown): { code?: string; message: string } {
  try {
    action()
  } catch (error) {
    return error as HoldfastError
  }
  return { message: 'it was taken' }
}

/** A SLEEP that has begun: a PREPARE of it would show its text as well. */
async function running(account: Account, sql: string): Promise<number> {
  return (await server.sessions(account.user)).filter(
    ({ info, state }) => info?.includes(sql) && state === 'User sleep',
  ).length
}

describe.concurrent.each(eachDriver(['mariadb-10.11']))('waiting, with $driver', ({ driver }) => {
  test('first come, first served; nobody who comes later slips in', async () => {
    const account = await server.createAccount()
    await withPool({ server, account, driver, options: { max: 3 } }, async (db) => {
      const leases = await Promise.all([db.acquire(), db.acquire(), db.acquire()])
      const served: number[] = []
      const turn = async (index: number): Promise<void> => {
        await using lease = await db.acquire()
        served.push(index)
        if (index % 4 === 0) await lease.query('SET @dirty = 1')
        else if (index % 4 === 1) await lease.query('SELECT SLEEP(0.002)')
        else if (index % 4 === 2) await sleep(1)
      }
      const turns = Array.from({ length: 90 }, (_, index) => turn(index))
      leases[0].release()
      for (let index = 90; index < 120; index++) {
        turns.push(turn(index))
        if (index % 5 === 0) await sleep(1)
        if (index === 100) leases[1].release()
      }
      leases[2].release()
      await Promise.all(turns)
      expect(served).toEqual(Array.from({ length: 120 }, (_, index) => index))
    })
  })

  test('with one session the order is exact', async () => {
    const account = await server.createAccount()
    await withPool({ server, account, driver, options: { max: 1 } }, async (db) => {
      const lease = await db.acquire()
      const served: number[] = []
      const turns = Array.from({ length: 100 }, (_, index) =>
        db.acquire().then((next) => (served.push(index), next.release())),
      )
      lease.release()
      await Promise.all(turns)
      expect(served).toEqual(Array.from({ length: 100 }, (_, index) => index))
    })
  })

  test('one deadline for queue and check together, and it is absolute', async () => {
    const account = await server.createAccount()
    await using relay = await startRelay(server)
    const db = createPool({ ...optionsFor(server, account, driver), port: relay.port, max: 1 })
    const lease = await db.acquire()
    await lease.query('SET @dirty = 1')
    const waiting = outcome(db.acquire({ timeoutMs: 700 }))
    using lag = watchLag()
    await sleep(350)
    relay.stall()
    lease.release() // its reset is never answered
    const { error, ms } = await waiting
    expect(error).toMatchObject({ code: 'POOL_ACQUIRE_TIMEOUT', effect: 'none' })
    expect(ms).toBeGreaterThan(600)
    expect(ms).toBeLessThan(800 + lag.worst())
    relay.resume()
    await nothingLeft(server, account, db)
  })

  test('a password, or a sessionInit, that never comes does not hold up the deadline', async () => {
    const account = await server.createAccount()
    const never = (): Promise<never> => new Promise(() => {})
    await server.query('SELECT GET_LOCK(?, 0)', [account.user])
    for (const options of [
      { password: never },
      { sessionInit: never },
      { sessionInit: `SELECT GET_LOCK('${account.user}', 1)` },
    ]) {
      await withPool(
        { server, account, driver, options: { ...options, connectTimeoutMs: 200, max: 2 } },
        async (db) => {
          using lag = watchLag()
          const { error, ms } = await outcome(db.acquire({ timeoutMs: 500 }))
          expect(error).toMatchObject({
            code: 'POOL_ACQUIRE_TIMEOUT',
            effect: 'none',
            cause: { code: 'CONNECT_TIMEOUT' },
          })
          expect(ms).toBeGreaterThan(400)
          expect(ms).toBeLessThan(600 + lag.worst())
          expect((await outcome(db.drain())).ms).toBeLessThan(1_000 + lag.worst())
        },
      )
    }
  })

  test('a password that is asked for at each dial, and fails at times', async () => {
    const account = await server.createAccount()
    let asked = 0
    const password = async (): Promise<string> => {
      if (++asked === 1) throw new Error('the vault is sealed')
      return account.password
    }
    await withPool({ server, account, driver, options: { password } }, async (db) => {
      const { error } = await outcome(db.query('SELECT 1'))
      expect(error).toBeUndefined()
      expect(asked).toBe(2)
    })
  })

  test('who comes when the queue is full is told so at once', async () => {
    const account = await server.createAccount()
    await withPool({ server, account, driver, options: { max: 1, queueLimit: 3, name: 'orders' } }, async (db) => {
      const lease = await db.acquire()
      const waiting = [db.query('SELECT 1'), db.acquire().then((one) => one.release()), db.transaction(async () => {})]
      for (const call of [
        () => db.query('SELECT 1'),
        () => db.acquire(),
        () => db.transaction(async () => {}),
        () => db.stream('SELECT 1').next(),
      ]) {
        const { error, ms } = await outcome<unknown>(call())
        expect(error).toMatchObject({ code: 'POOL_QUEUE_FULL', effect: 'none' })
        expect(error?.message).toMatch(/^orders: 3 wait already \(queueLimit\).*waiting 3/)
        expect(ms).toBeLessThan(100)
      }
      lease.release()
      await Promise.all(waiting)
    })
  })

  test('a burst on a cold pool that its sessions can take does not count as a queue', async () => {
    const account = await server.createAccount()
    await withPool({ server, account, driver, options: { max: 10, queueLimit: 2 } }, async (db) => {
      expect(tally(await crowd(12, () => db.query('SELECT SLEEP(0.2)')))).toEqual({ ok: 12 })
    })
    await withPool({ server, account, driver, options: { max: 2, queueLimit: 1 } }, async (db) => {
      expect(tally(await crowd(4, () => db.query('SELECT SLEEP(0.2)')))).toEqual({ ok: 3, POOL_QUEUE_FULL: 1 })
    })
  })
})

describe.concurrent.each(
  eachDriver(['mariadb-10.11', 'mysql-9.7']).filter(
    ({ kind, driver }) => kind === 'mariadb-10.11' || driver === 'mysql2',
  ),
)('AbortSignal, on $kind with $driver', ({ kind, driver }) => {
  let own: TestServer
  beforeAll(async () => {
    own = kind === 'mariadb-10.11' ? server : await startServer(kind)
  })
  afterAll(async () => {
    if (own !== server) await own?.[Symbol.asyncDispose]()
  })

  const calls = (db: Pool, signal: AbortSignal): Record<string, () => Promise<unknown>> => ({
    acquire: () => db.acquire({ signal }).then((lease) => (lease.release(), 'lease')),
    use: () => db.use((lease) => lease.query('SELECT SLEEP(20)'), { signal }),
    query: () => db.query('SELECT SLEEP(20)', [], { signal }),
    transaction: () => db.transaction((tx) => tx.query('SELECT SLEEP(20)'), { signal }),
    stream: () => db.stream('SELECT SLEEP(20)', [], { signal }).next(),
  })

  test('that was aborted before: nothing is done', async () => {
    const account = await own.createAccount()
    await withPool({ server: own, account, driver }, async (db) => {
      const signal = AbortSignal.abort(new Error('changed my mind'))
      for (const [what, call] of Object.entries(calls(db, signal))) {
        const { error } = await outcome(call())
        expect(error, what).toMatchObject({ code: 'ABORTED', effect: 'none', cause: { message: 'changed my mind' } })
      }
      expect(db.stats().leased).toBe(0)
      await db.query('SELECT 1')
    })
  })

  test('while they wait: they leave the line at once, and nothing stays on the signal', async () => {
    const account = await own.createAccount()
    await withPool({ server: own, account, driver, options: { max: 1 } }, async (db) => {
      const lease = await db.acquire()
      const controller = new AbortController()
      const waiting = Object.values(calls(db, controller.signal)).map((call) => outcome(call()))
      await until('all wait', () => db.stats().waiting === 5)
      const began = performance.now()
      controller.abort(new Error('too late'))
      for (const { error } of await Promise.all(waiting))
        expect(error).toMatchObject({ code: 'ABORTED', effect: 'none', cause: { message: 'too late' } })
      expect(performance.now() - began).toBeLessThan(500)
      expect(db.stats().waiting).toBe(0)
      expect(getEventListeners(controller.signal, 'abort')).toHaveLength(0)
      lease.release()
    })
  })

  test('while they run: they end at once, the statement is ended on the server, and the slot comes back', async () => {
    const account = await own.createAccount()
    await withPool({ server: own, account, driver, options: { max: 6 } }, async (db) => {
      const { acquire: _, use: __, ...rest } = calls(db, AbortSignal.abort())
      for (const what of Object.keys(rest)) {
        const controller = new AbortController()
        const result = outcome((calls(db, controller.signal)[what] as () => Promise<unknown>)())
        await until(`the ${what} runs`, async () =>
          (await own.sessions(account.user)).some(({ info }) => info?.includes('SLEEP(20)')),
        )
        controller.abort()
        const began = performance.now()
        const { error } = await result
        expect(performance.now() - began, what).toBeLessThan(1_000)
        expect(error, what).toMatchObject({ code: 'ABORTED' })
        expect(getEventListeners(controller.signal, 'abort'), what).toHaveLength(0)
        await until(
          `the ${what} is ended on the server`,
          async () => (await own.sessions(account.user)).every(({ info }) => !info?.includes('SLEEP(20)')),
          4_000,
        )
      }
      await until('no ghost is left', () => db.stats().ghost === 0 || placesOf(db))
      expect(tally(await crowd(6, () => db.query('SELECT 1')))).toEqual({ ok: 6 })
    })
  })

  test('that fires in the very turn in which a session came free: the query is not run to its end', async () => {
    const account = await own.createAccount()
    await withPool({ server: own, account, driver, options: { max: 1 } }, async (db) => {
      for (const use of ['query', 'transaction', 'stream']) {
        const lease = await db.acquire()
        const controller = new AbortController()
        const waiting = outcome((calls(db, controller.signal)[use] as () => Promise<unknown>)())
        await until('it waits', () => db.stats().waiting === 1)
        lease.release()
        controller.abort()
        const { error, ms } = await waiting
        expect(error, use).toMatchObject({ code: 'ABORTED' })
        expect(ms, use).toBeLessThan(3_000)
      }
    })
  })

  test('one signal for a crowd of running statements', async () => {
    const account = await own.createAccount()
    await withPool({ server: own, account, driver, options: { max: 12 } }, async (db) => {
      const controller = new AbortController()
      const { signal } = controller
      expect(tally(await crowd(100, () => db.query('SELECT SLEEP(0.01)', [], { signal })))).toEqual({ ok: 100 })
      expect(getEventListeners(signal, 'abort')).toHaveLength(0)
      const working = crowd(60, () => db.query('SELECT SLEEP(20)', [], { signal }))
      await until('they run', () => db.stats().leased === 12)
      controller.abort()
      expect(tally(await working)).toEqual({ ABORTED: 60 })
      // MariaDB takes up to two seconds for a KILL while many sleep.
      await until('the slots are back', () => db.stats().ghost === 0 || placesOf(db), 15_000)
      expect(tally(await crowd(12, () => db.query('SELECT 1')))).toEqual({ ok: 12 })
      expect((await own.sessions(account.user)).filter(({ info }) => info?.includes('SLEEP(20)'))).toEqual([])
    })
  })

  test('of a lease that waits for its turn on the session', async () => {
    const account = await own.createAccount()
    await withPool({ server: own, account, driver }, async (db) => {
      await using lease = await db.acquire()
      const controller = new AbortController()
      const first = outcome(lease.query('SELECT SLEEP(0.5)'))
      const second = outcome(lease.query("SELECT 'never sent'", [], { signal: controller.signal }))
      const third = outcome(lease.query('SELECT 3 AS three'))
      await sleep(100)
      controller.abort()
      expect((await second).error).toMatchObject({ code: 'ABORTED', effect: 'none' })
      expect((await second).ms).toBeLessThan(400)
      expect((await first).error).toBeUndefined()
      expect((await third).value?.rows[0].three).toBe(3)
    })
  })
})

describe('a crowd', () => {
  // In a process of its own: what blocks the event loop is measured there.
  const CROWD = `
    import { createPool } from './dist/index.js'
    const { options, count, how } = JSON.parse(process.argv[1])
    const db = createPool({ ...options, max: 1, queueLimit: count })
    const lease = await db.acquire()
    // Of a gap only the CPU time counts: others may have had the processor.
    let longest = 0, at = performance.now(), cpu = process.cpuUsage()
    const look = setInterval(() => {
      const used = process.cpuUsage(cpu)
      longest = Math.max(longest, Math.min(performance.now() - at, (used.user + used.system) / 1000))
      at = performance.now()
      cpu = process.cpuUsage()
    }, 1)
    const controller = new AbortController()
    const outcomes = { served: 0 }
    let settled = 0
    let all
    const done = new Promise((resolve) => (all = resolve))
    const waitOne = () => db.acquire({ timeoutMs: how === 'timed out' ? 2_500 : 60_000, ...(how === 'aborted' ? { signal: controller.signal } : {}) }).then(
      (one) => { outcomes.served++; one.release() },
      (error) => { outcomes[error.code] = (outcomes[error.code] ?? 0) + 1 },
    ).finally(() => { if (++settled === count) all() })
    const began = performance.now()
    for (let index = 0; index < count; index++) {
      void waitOne()
      if (index % 500 === 499) await new Promise((resolve) => setImmediate(resolve))
    }
    const enqueuedMs = performance.now() - began
    const waiting = db.stats().waiting
    const left = performance.now()
    if (how === 'aborted') controller.abort()
    if (how === 'drained') void db.drain()
    await done
    const leftMs = performance.now() - left
    clearInterval(look)
    const after = db.stats().waiting
    lease.release()
    await new Promise((resolve) => setTimeout(resolve, 100))
    const { idle, leased } = db.stats()
    await db.drain()
    process.send({ waiting, after, outcomes, idle, leased, longest, enqueuedMs, leftMs })
    process.disconnect()
  `
  const crowdOf = async (count: number, how: string): Promise<Record<string, never>> => {
    const account = await server.createAccount()
    const options = optionsFor(server, account, 'mysql2')
    await using program = startScript(CROWD, { args: [JSON.stringify({ options, count, how })] })
    const told = await program.next<Record<string, never>>(25_000)
    expect(await program.exited).toEqual({ code: 0, signal: null })
    expect(program.output).toBe('')
    await server.untilNoSessions(account.user)
    return told
  }

  test.each([
    ['aborted', 'ABORTED'],
    ['timed out', 'POOL_ACQUIRE_TIMEOUT'],
    ['drained', 'POOL_CLOSED'],
  ])('100 000 waiters are %s without blocking the event loop, and nobody is served afterwards', async (how, code) => {
    const told = await crowdOf(100_000, how)
    console.log(`100 000 waiters ${how}:`, told)
    expect(told).toMatchObject({ after: 0, outcomes: { served: 0, [code]: 100_000 }, leased: 0 })
    expect(told['longest']).toBeLessThan(150) // 20 to 30 on a quiet machine; `npm run bench` is stricter
  })
})

describe.concurrent.each(eachDriver(['mariadb-10.11']))('the end of the process, with $driver', ({ driver }) => {
  const PROGRAM = (body: string): string => `
    import { createPool } from './dist/index.js'
    const options = JSON.parse(process.argv[1])
    const db = createPool(options)
    let doneAt = performance.now()
    const done = () => (doneAt = performance.now())
    process.on('exit', () => console.log('exit after', Math.round(performance.now() - doneAt)))
    ${body}
    done()
  `
  const start = async (
    body: string,
    options: PoolOptions = {},
  ): Promise<{ program: TestProcess; account: Account }> => {
    const account = await server.createAccount()
    const all = { ...optionsFor(server, account, driver), ...options }
    return { program: startScript(PROGRAM(body), { args: [JSON.stringify(all)] }), account }
  }

  const EXITS: [string, string, PoolOptions?][] = [
    ['a pool that was never used', ''],
    ['after queries', `await Promise.all([1, 2, 3].map(() => db.query('SELECT SLEEP(0.05)')))`],
    ['with minIdle', `await db.query('SELECT 1')`, { minIdle: 3 }],
    ['with minIdle, before anything was opened', ``, { minIdle: 3 }],
    ['with minIdle and no server', `await new Promise((resolve) => setTimeout(resolve, 300))`, { port: 9, minIdle: 3 }],
    [
      'after a lease was released dirty',
      `const lease = await db.acquire(); await lease.query('SET @a = 1'); lease.release()`,
    ],
    [
      'after transactions, streams and a failed statement',
      `
      await db.transaction((tx) => tx.query('SELECT 1'))
      for await (const row of db.stream('SELECT seq FROM seq_1_to_1000')) if (row.seq > 10) break
      await db.query('SELEC').catch(() => {})`,
    ],
    ['after a statement that timed out', `await db.query('SELECT SLEEP(20)', [], { timeoutMs: 100 }).catch(() => {})`],
    ['after a drain', `await db.query('SELECT 1'); await db.drain()`],
    ['with a drain that nobody waits for', `await db.query('SELECT 1'); void db.drain()`],
    [
      'after waiting in vain',
      `const lease = await db.acquire(); await db.acquire({ timeoutMs: 100 }).catch(() => {}); lease.release()`,
      { max: 1 },
    ],
  ]
  test.each(EXITS)('%s: it exits by itself, at once', async (_, body, options) => {
    const { program, account } = await start(body, options)
    await using _program = program
    const exited = await Promise.race([program.exited, sleep(8_000)])
    expect(exited, program.output).toEqual({ code: 0, signal: null })
    const [, ms] = /exit after (\d+)/.exec(program.output) ?? []
    expect(program.output.replace(/exit after \d+\n/, '')).toBe('')
    expect(Number(ms)).toBeLessThan(2_500)
    await server.untilNoSessions(account.user)
  })

  test('a lease that is out keeps it alive, and so does a statement that runs', async () => {
    const { program } = await start(`globalThis.kept = await db.acquire(); process.send('has it')`)
    await using _program = program
    await program.next()
    expect(await Promise.race([program.exited.then(() => 'exited'), sleep(1_500).then(() => 'alive')])).toBe('alive')
    const other = await start(`void db.query('SELECT SLEEP(1)').then(() => console.log('it came'))`)
    await using _other = other.program
    expect(await other.program.exited).toEqual({ code: 0, signal: null })
    expect(other.program.output).toMatch(/it came/)
  })

  test('who waits keeps it alive until the deadline', async () => {
    const bodies: [string, PoolOptions][] = [
      [`void db.acquire({ timeoutMs: 1_200 }).catch((error) => console.log(error.code))`, { port: 9 }],
      [`void db.query('SELECT 1', [], { timeoutMs: 1_200 }).catch((error) => console.log(error.code))`, { port: 9 }],
    ]
    await Promise.all(
      bodies.map(async ([body, options]) => {
        const { program } = await start(body, options)
        await using _program = program
        expect(await program.exited).toEqual({ code: 0, signal: null })
        expect(program.output).toMatch(/POOL_ACQUIRE_TIMEOUT/)
        expect(Number(/exit after (\d+)/.exec(program.output)?.[1])).toBeGreaterThan(1_000)
      }),
    )
  })
})

describe.concurrent.each(eachDriver(['mariadb-10.11']))('an odd world, with $driver', ({ driver }) => {
  // In a process of its own, whose wall clock is ours to set.
  const CLOCK = `
    import { createPool } from './dist/index.js'
    const real = Date.now
    let ahead = 0
    Date.now = () => real() + ahead
    const warnings = []
    process.on('warning', (warning) => warnings.push(warning.message))
    const db = createPool({ ...JSON.parse(process.argv[1]), max: 2, leakAfterMs: 60_000, onLeak: 'reclaim' })
    const settle = (promise) => promise.then(() => 'ok', (error) => error.code + ' ' + error.message)
    const told = []
    for (const jump of [3_600_000, -7_200_000, 90_000]) {
      const [one, two] = [await db.acquire(), await db.acquire()]
      const waiting = settle(db.query('SELECT 1'))
      const transaction = settle(db.transaction(async (tx) => tx.query('SELECT 1'), { timeoutMs: 8_000 }))
      const running = settle(two.query('SELECT SLEEP(0.7)', [], { timeoutMs: 5_000 }))
      ahead += jump
      await new Promise((resolve) => setTimeout(resolve, 400))
      const kept = await settle(one.query('SELECT 1'))
      one.release()
      told.push([kept, await waiting, await transaction, await running])
      two.release()
      await db.query('SELECT 1')
    }
    await db.drain()
    process.send({ told, warnings })
    process.disconnect()
  `

  test('a wall clock that is set, forward or back, fails nobody and takes nobody his lease', async () => {
    const account = await server.createAccount()
    await using program = startScript(CLOCK, { args: [JSON.stringify(optionsFor(server, account, driver))] })
    expect(await program.next(20_000)).toEqual({ told: Array(3).fill(Array(4).fill('ok')), warnings: [] })
    await server.untilNoSessions(account.user)
  })

  test('over a unix socket all is the same', async () => {
    const account = await server.createAccount({ maxUserConnections: 2 })
    const { host: _, port: __, ...local } = optionsFor(server, account, driver)
    const db = createPool({ ...local, socketPath: server.socketPath })
    expect(tally(await crowd(20, () => db.query('SELECT SLEEP(0.005)')))).toEqual({ ok: 20 })
    expect((await outcome(db.query('SELECT SLEEP(20)', [], { timeoutMs: 400 }))).error).toMatchObject({
      code: 'QUERY_TIMEOUT',
    })
    await until('it is ended on the server', async () => (await running(account, 'SLEEP(20)')) === 0)
    await until('no ghost is left', () => db.stats().ghost === 0)
    for (const { id } of await server.sessions(account.user)) await server.kill(id).catch(() => {})
    await until('they are noticed', () => db.stats().idle === 0)
    expect(tally(await crowd(5, () => db.query('SELECT 1')))).toEqual({ ok: 5 })
    await nothingLeft(server, account, db)
    const gone = createPool({ ...local, socketPath: `${server.socketPath}.gone` })
    const { error } = await outcome(gone.query('SELECT 1', [], { timeoutMs: 300 }))
    expect(error).toMatchObject({ code: 'POOL_ACQUIRE_TIMEOUT' })
    expect(error?.message).toMatch(/ENOENT/)
    await gone.drain()
  })
})

describe.concurrent.each(eachDriver(['mariadb-10.11']))('drain, with $driver', ({ driver }) => {
  const opened = async (options: PoolOptions = {}): Promise<{ db: Pool; account: Account }> => {
    const account = await server.createAccount()
    return { db: createPool({ ...optionsFor(server, account, driver), ...options }), account }
  }

  test('lets leases, transactions and streams finish, and refuses everything new', async () => {
    const { db, account } = await opened({ max: 4 })
    await db.query('CREATE TABLE t (id INT PRIMARY KEY)')
    const lease = await db.acquire()
    const transaction = db.transaction(async (tx) => {
      await tx.query('INSERT INTO t VALUES (1)')
      await sleep(400)
      await tx.query('INSERT INTO t VALUES (2)')
    })
    const query = db.query('SELECT SLEEP(0.3), 5 AS five')
    let rows = 0
    const stream = (async () => {
      for await (const _ of db.stream('SELECT seq, SLEEP(0.002) FROM seq_1_to_100')) rows++
    })()
    await until('all are at work', () => db.stats().leased === 4)
    const waiting = [db.query('SELECT 1'), db.acquire(), db.transaction(async () => {})].map((one) =>
      outcome<unknown>(one),
    )
    await until('three wait', () => db.stats().waiting === 3)

    const drained = db.drain()
    expect(db.drain()).toBe(drained)
    expect(db.drain({ timeoutMs: 1 })).toBe(drained)
    for (const { error } of await Promise.all(waiting))
      expect(error).toMatchObject({ code: 'POOL_CLOSED', effect: 'none' })
    for (const call of [
      () => db.query('SELECT 1'),
      () => db.acquire(),
      () => db.use(async () => {}),
      () => db.transaction(async () => {}),
      () => db.stream('SELECT 1').next(),
    ]) {
      const { error, ms } = await outcome<unknown>(call())
      expect(error).toMatchObject({ code: 'POOL_CLOSED', effect: 'none' })
      expect(ms).toBeLessThan(200)
    }
    await lease.query('SELECT 1')
    await Promise.all([transaction, query, stream])
    expect(rows).toBe(100)
    expect(await Promise.race([drained.then(() => 'over'), sleep(200).then(() => 'waits for the lease')])).toBe(
      'waits for the lease',
    )
    expect(placesOf(db)).toMatchObject({ held: 1, leased: 1 })
    await lease.query('SELECT 1')
    lease.release()
    await drained
    expect((await server.query(`SELECT COUNT(*) n FROM ${account.database}.t`))[0]).toEqual({ n: 2 })
    await nothingLeft(server, account, db)
  })

  test('cuts at its deadline what did not come home, whose holder is told so', async () => {
    const { db, account } = await opened()
    const idle = await db.acquire()
    const busy = await db.acquire()
    const query = outcome(busy.query('SELECT SLEEP(20)'))
    const transaction = outcome(db.transaction((tx) => tx.query('SELECT SLEEP(20)')))
    const stream = outcome(db.stream('SELECT SLEEP(20)').next())
    await until('all are at work', () => db.stats().leased === 4)
    const { error, ms } = await outcome(db.drain({ timeoutMs: 400 }))
    expect(error).toBeUndefined()
    expect(ms).toBeGreaterThan(300)
    expect(ms).toBeLessThan(1_000)
    expect((await query).error).toMatchObject({ code: 'SESSION_LOST', effect: 'unknown' })
    expect((await transaction).error).toMatchObject({ code: expect.stringMatching(/TRANSACTION_LOST|POOL_CLOSED/) })
    expect((await stream).error).toMatchObject({ code: 'STREAM_BROKEN' })
    expect((await outcome(idle.query('SELECT 1'))).error).toMatchObject({ code: 'SESSION_LOST', effect: 'none' })
    idle.release()
    busy.release()
    idle.release()
    await sleep(20)
    addsUp(db)
    expect(placesOf(db)).toMatchObject({ held: 0, leased: 0, closing: 0, ghost: 0 })
    await server.untilNoSessions(account.user, 22_000).catch(() => {})
  })

  test('of a pool that was never used, or is idle, is quick; minIdle does not open again', async () => {
    const fresh = await opened()
    expect((await outcome(fresh.db.drain())).ms).toBeLessThan(100)
    const { db, account } = await opened({ minIdle: 3 })
    await until('three are idle', () => db.stats().idle === 3)
    expect((await outcome(db.drain())).ms).toBeLessThan(900)
    await sleep(300)
    expect(db.stats()).toMatchObject({ held: 0, total: { opened: 3 } })
    await nothingLeft(server, account, db)
  })

  test('while it dials into silence', async () => {
    await using relay = await startRelay(server)
    relay.greetNever()
    const { db, account } = await opened({ port: relay.port })
    const waiting = crowd(5, () => db.query('SELECT 1'))
    await until('it dials', () => db.stats().opening === 1)
    const { error, ms } = await outcome(db.drain())
    expect(error).toBeUndefined()
    expect(ms).toBeLessThan(500)
    expect(tally(await waiting)).toEqual({ POOL_CLOSED: 5 })
    await until('its attempt is gone', () => relay.open === 0)
    await nothingLeft(server, account, db)
  })

  test('while it waits for slots that others hold, and while it backs off from a server that is not there', async () => {
    const { db } = await opened({ port: 9 })
    const waiting = crowd(5, () => db.query('SELECT 1'))
    await sleep(150)
    expect((await outcome(db.drain())).ms).toBeLessThan(500)
    expect(tally(await waiting)).toEqual({ POOL_CLOSED: 5 })
  })

  test('with ghosts: their statements are ended on the server first', async () => {
    for (const waitMs of [0, 100]) {
      const { db, account } = await opened({ max: 3 })
      await crowd(3, () => db.query('SELECT SLEEP(0.1)'))
      expect(tally(await crowd(2, () => db.query('SELECT SLEEP(20)', [], { timeoutMs: 300 })))).toEqual({
        QUERY_TIMEOUT: 2,
      })
      await sleep(waitMs)
      const { error, ms } = await outcome(db.drain())
      expect(error).toBeUndefined()
      expect(ms).toBeLessThan(3_000)
      expect(await running(account, 'SLEEP(20)'), `drained ${waitMs} ms after the timeout`).toBe(0)
      await nothingLeft(server, account, db)
    }
  })

  test('after the server died, and while it stands still', async () => {
    await using other = await startServer('mariadb-10.11')
    const account = await other.createAccount()
    const pools = [1, 2].map(() => createPool({ ...optionsFor(other, account, driver), max: 3 })) as [Pool, Pool]
    const leases: Lease[] = []
    for (const db of pools) {
      await crowd(3, () => db.query('SELECT SLEEP(0.05)'))
      leases.push(await db.acquire())
    }
    await other.freeze()
    const frozen = outcome(pools[0].drain({ timeoutMs: 3_000 }))
    leases[0]?.release()
    expect((await frozen).error).toBeUndefined()
    expect((await frozen).ms).toBeLessThan(2_500)
    other.thaw()
    await other.stop('SIGKILL')
    const dead = outcome(pools[1].drain({ timeoutMs: 3_000 }))
    leases[1]?.release()
    expect((await dead).error).toBeUndefined()
    expect((await dead).ms).toBeLessThan(1_000)
    for (const db of pools) expect(db.stats().held).toBe(0)
  })

  test('by `await using`, of a pool and of a lease', async () => {
    const account = await server.createAccount()
    let db: Pool
    {
      await using pool = createPool({ ...optionsFor(server, account, driver), max: 1 })
      db = pool
      {
        await using lease = await pool.acquire()
        await lease.query('SELECT 1')
      }
      expect(pool.stats()).toMatchObject({ leased: 0, idle: 1 })
    }
    await nothingLeft(server, account, db)
    expect((await outcome(db.query('SELECT 1'))).error).toMatchObject({ code: 'POOL_CLOSED' })
  })
})

describe.concurrent.each(eachDriver(['mariadb-10.11']))(
  'what it tells, with $driver',
  ({ driver }: { driver: DriverName }) => {
    test('stats() adds up at every moment under load, with failures of all kinds', async () => {
      const account = await server.createAccount({ maxUserConnections: 6 })
      await withPool(
        { server, account, driver, options: { max: 8, maxLifetimeMs: 300, acquireTimeoutMs: 2_000 } },
        async (db) => {
          const end = performance.now() + 2_500
          const work: (() => Promise<unknown>)[] = [
            () => db.query('SELECT SLEEP(0.003)'),
            () => db.query('SELECT SLEEP(5)', [], { timeoutMs: 50 }),
            () => db.query('SELEC'),
            () => db.query('SELECT SLEEP(0.01)', [], { signal: AbortSignal.timeout(5) }),
            () => db.transaction((tx) => tx.query('SELECT SLEEP(0.002)')),
            () => db.transaction(async () => Promise.reject(new Error('no'))),
            () => db.use((lease) => lease.query('SET @dirty = 1')),
            () => db.acquire({ timeoutMs: 5 }).then((lease) => lease.release()),
            async () => {
              for await (const row of db.stream('SELECT seq FROM seq_1_to_5000')) if (row.seq > 100) break
            },
            () => db.use((lease) => server.kill(lease.threadId)),
          ]
          const worker = async (): Promise<void> => {
            while (performance.now() < end)
              await outcome((work[Math.floor(Math.random() * work.length)] as () => Promise<unknown>)())
          }
          const looking = (async () => {
            let looks = 0
            for (; performance.now() < end; looks++) {
              addsUp(db)
              if (looks % 5) await new Promise((resolve) => setImmediate(resolve))
              else await sleep(1)
            }
            return looks
          })()
          await Promise.all(Array.from({ length: 14 }, worker))
          expect(await looking).toBeGreaterThan(100)
          await until('all is quiet', () => db.stats().held === db.stats().idle || placesOf(db), 6_000)
          const { total, waiting } = db.stats()
          expect(waiting).toBe(0)
          expect(total.acquired).toBe(total.released)
          expect(total.opened - total.retired).toBe(db.stats().held)
        },
      )
    })

    test('events fire with their fields, agree with stats(), and hold no secret', async () => {
      const account = await server.createAccount({ name: `ev_${driver}`, password: 'Passw0rd-of-events' })
      const name = `events of ${driver}`
      const seen: { [Name in keyof Events]: Events[Name][] } = {
        opened: [],
        refused: [],
        acquired: [],
        released: [],
        retired: [],
        fault: [],
        retry: [],
        leak: [],
      }
      const listeners = Object.entries(seen).map(([event, list]) => {
        const listener = (message: unknown): void =>
          void ((message as { pool: string }).pool === name && (list as unknown[]).push(message))
        subscribe(`holdfast:${event}`, listener)
        return () => unsubscribe(`holdfast:${event}`, listener)
      })
      const secret = 'b0und-value'
      await using relay = await startRelay(server)
      const options = { name, max: 2, port: relay.port, leakAfterMs: 800, connectTimeoutMs: 1_000 }
      await withPool({ server, account, driver, options }, async (db) => {
        await db.query('CREATE TABLE t (id INT PRIMARY KEY, v TEXT) ENGINE=InnoDB')
        await db.query('INSERT INTO t VALUES (?, ?)', [1, secret])
        await outcome(db.query('INSERT INTO t VALUES (?, ?)', [1, secret])) // a fault: 1062
        await outcome(db.query('SELECT ?, SLEEP(5)', [secret], { timeoutMs: 100 }))
        // A session lost, and a retry.
        await until('the ghost is laid', () => db.stats().ghost === 0)
        const reading = db.query('SELECT ?, SLEEP(2.5)', [secret], { idempotent: true })
        await until('it runs', async () => (await running(account, 'SLEEP(2.5)')) === 1)
        for (const { id, info } of await server.sessions(account.user)) if (info) await server.kill(id)
        await reading
        // A leak.
        const lease = await db.acquire()
        await lease.query('BEGIN')
        await lease.query('INSERT INTO t VALUES (?, ?)', [2, secret])
        await until('the leak is told', () => seen.leak.length === 1)
        lease.release()
        // A refusal.
        await until('all are home', () => db.stats().leased + db.stats().checking === 0)
        for (const { id } of await server.sessions(account.user)) await server.kill(id)
        await until('none is left', () => db.stats().held === 0)
        relay.dropDials()
        await outcome(db.query('SELECT 1', [], { timeoutMs: 300 }))
        relay.resume()
        await db.query('SELECT 1')
        await db.drain()
        const { total } = db.stats()
        expect({
          opened: seen.opened.length,
          refused: seen.refused.length,
          acquired: seen.acquired.length,
          released: seen.released.length,
          retired: seen.retired.length,
          retries: seen.retry.length,
          leaks: seen.leak.length,
        }).toEqual({
          opened: total.opened,
          refused: total.refused,
          acquired: total.acquired,
          released: total.released,
          retired: total.retired,
          retries: total.retries,
          leaks: total.leaks,
        })
      })
      for (const stop of listeners) stop()
      const [ms, threadId] = [expect.any(Number), expect.any(Number)]
      for (const one of seen.opened) expect(one).toEqual({ pool: name, threadId, openedInMs: ms })
      for (const one of seen.acquired) expect(one).toEqual({ pool: name, threadId, waitedMs: ms })
      for (const one of seen.released) expect(one).toEqual({ pool: name, threadId, usedMs: ms })
      for (const one of seen.retired)
        expect(one).toEqual({ pool: name, threadId, reason: expect.any(String), livedMs: ms })
      for (const one of [...seen.opened, ...seen.acquired, ...seen.released, ...seen.retired]) {
        expect(one.threadId).toBeGreaterThan(0)
        for (const value of Object.values(one)) if (typeof value === 'number') expect(value).toBeGreaterThanOrEqual(0)
      }
      expect(seen.fault.map(({ fault }) => fault.kind)).toEqual(expect.arrayContaining(['statement', 'lost']))
      expect(seen.refused.length).toBeGreaterThan(0)
      expect(seen.refused[0]?.fault).toMatchObject({ kind: 'unreachable', session: 'lost', effect: 'none' })
      expect(seen.retry).toEqual([
        { pool: name, what: 'statement', attempt: 2, fault: expect.objectContaining({ kind: 'lost' }), inMs: ms },
      ])
      expect(seen.leak).toEqual([
        {
          pool: name,
          threadId,
          heldMs: ms,
          takenAt: expect.stringMatching(/manners\.test\.ts:\d+/),
          lastSql: expect.stringMatching(/^INSERT INTO t/),
          inTransaction: true,
          abandoned: false,
        },
      ])
      const told = inspect(seen, { depth: 10, maxArrayLength: null, maxStringLength: null })
      expect(told).not.toContain(secret)
      expect(told).not.toContain(account.password)
    })

    test('no error, and no object of ours, holds a password, a bound value or a URL', async () => {
      const account = await server.createAccount({ name: `sec_${driver}`, password: 'Passw0rd-to-hide' })
      const secret = 'v4lue-to-hide'
      await using relay = await startRelay(server)
      const options = { max: 3, port: relay.port }
      const errors: unknown[] = []
      const failing = async (what: string, call: Promise<unknown>): Promise<void> => {
        const { error } = await outcome(call)
        expect(error, what).toBeDefined()
        errors.push(error)
      }
      await withPool({ server, account, driver, options }, async (db) => {
        await db.query('CREATE TABLE t (id INT PRIMARY KEY, v TEXT, u INT UNIQUE) ENGINE=InnoDB')
        await db.query('INSERT INTO t VALUES (1, ?, 1)', [secret])
        for (const prepare of [false, true]) {
          await failing('1062', db.query('INSERT INTO t (v, id) VALUES (?, ?)', [secret, 1], { prepare }))
          await failing('1146', db.query('INSERT INTO missing VALUES (?)', [secret], { prepare }))
          await failing('1054', db.query('SELECT nothing FROM t WHERE v = ?', [secret], { prepare }))
          await failing('timeout', db.query('SELECT ?, SLEEP(5)', [secret], { prepare, timeoutMs: 150 }))
          await failing(
            'abort',
            db.query('SELECT ?, SLEEP(5)', [secret], { prepare, signal: AbortSignal.timeout(150) }),
          )
          const lost = outcome(db.query('SELECT ?, SLEEP(15)', [secret], { prepare }))
          await until('it runs', async () => (await running(account, 'SLEEP(15)')) === 1)
          for (const { id, info } of await server.sessions(account.user))
            if (info?.includes('SLEEP(15)')) await server.kill(id)
          await failing(
            'lost',
            lost.then(({ error }) => Promise.reject(error as unknown)),
          )
        }
        await failing('wrong number of values', db.query('SELECT ?, ?', [secret], { prepare: true }))
        await failing(
          'a value of no type',
          db
            .query(
              'SELECT ?',
              [
                {
                  toString: () => {
                    throw new Error('no')
                  },
                  secret,
                },
              ],
              { prepare: true },
            )
            .then(() => Promise.reject(new Error('it was taken'))),
        )
        await failing('too large', db.query('SELECT ?', [secret.repeat(3_000_000)]))
        await failing(
          'transaction',
          db.transaction(
            async (tx) => {
              await tx.query('INSERT INTO t (v, id) VALUES (?, ?)', [secret, 9])
              await server.kill(tx.threadId)
              await sleep(100)
              await tx.query('INSERT INTO t (v, id) VALUES (?, ?)', [secret, 10])
            },
            { retries: 0 },
          ),
        )
        await failing(
          'stream',
          (async () => {
            const rows = db.stream('SELECT ?, SLEEP(1) FROM seq_1_to_10', [secret])
            const first = outcome(rows.next())
            await until('it runs', async () => (await running(account, 'SLEEP(1)')) === 1)
            for (const { id, info } of await server.sessions(account.user))
              if (info?.includes('SLEEP(1)')) await server.kill(id)
            const { error } = await first
            if (error) throw error
            for await (const _ of rows);
          })(),
        )
        await db.use(async (lease) => {
          expect(inspect([db, lease], { depth: 10, showHidden: true })).not.toMatch(/Passw0rd-to-hide/)
        })
        relay.dropDials()
        relay.reset()
        await failing('no session', db.query('SELECT ?', [secret], { timeoutMs: 300 }))
        relay.resume()
      })
      for (const url of [
        account.url.replace(account.user, 'nobody_there'),
        account.url.replace('Passw0rd', 'Wrong-Passw0rd'),
      ]) {
        const db = createPool(url, { driver })
        await failing('denied', db.query('SELECT 1'))
        expect(inspect(db, { depth: 10, showHidden: true })).not.toMatch(/Passw0rd-to-hide/)
        await db.drain()
      }
      for (const error of errors) {
        const told = inspect(error, { depth: 10, showHidden: true, maxStringLength: 100_000 }) + JSON.stringify(error)
        expect(told).not.toContain(secret)
        expect(told).not.toContain('Passw0rd-to-hide')
        expect(told).not.toContain('mysql://')
      }
    })
  },
)

describe('bad options', () => {
  const SECRET = 'hunter2'
  const BAD: [string, () => unknown, RegExp][] = [
    ['an unknown option', () => createPool({ ...NOWHERE, maxx: 3 } as PoolOptions), /'maxx'.*'max'/],
    [
      "another pool's name for it",
      () => createPool({ ...NOWHERE, connectionLimit: 3 } as PoolOptions),
      /'connectionLimit'.*'max'/,
    ],
    [
      "a pool's name with another unit",
      () => createPool({ ...NOWHERE, idleTimeout: 3 } as PoolOptions),
      /'idleTimeoutMs'/,
    ],
    [
      'an option that nobody knows',
      () => createPool({ ...NOWHERE, quux: 3 } as unknown as PoolOptions),
      /'quux'.*known are/,
    ],
    ['max 0', () => createPool({ ...NOWHERE, max: 0 }), /max must be a whole number of at least 1, not 0/],
    ['max negative', () => createPool({ ...NOWHERE, max: -1 }), /max/],
    ['max in words', () => createPool({ ...NOWHERE, max: '10' as never }), /max.*'10'/],
    ['max NaN', () => createPool({ ...NOWHERE, max: Number.NaN }), /max.*NaN/],
    ['max half', () => createPool({ ...NOWHERE, max: 2.5 }), /max.*2\.5/],
    ['max Infinity', () => createPool({ ...NOWHERE, max: Infinity }), /max/],
    ['max null', () => createPool({ ...NOWHERE, max: null as never }), /max.*null/],
    ['minIdle above max', () => createPool({ ...NOWHERE, max: 2, minIdle: 3 }), /minIdle \(3\).*max \(2\)/],
    ['seconds for acquireTimeoutMs', () => createPool({ ...NOWHERE, acquireTimeoutMs: 10 }), /milliseconds.*10_000/],
    ['seconds for connectTimeoutMs', () => createPool({ ...NOWHERE, connectTimeoutMs: 5 }), /milliseconds.*5_000/],
    ['seconds for queryTimeoutMs', () => createPool({ ...NOWHERE, queryTimeoutMs: 30 }), /milliseconds.*30_000/],
    ['seconds for idleTimeoutMs', () => createPool({ ...NOWHERE, idleTimeoutMs: 60 }), /milliseconds.*60_000/],
    ['seconds for maxLifetimeMs', () => createPool({ ...NOWHERE, maxLifetimeMs: 1_800 }), /milliseconds.*1_800_000/],
    ['seconds for leakAfterMs', () => createPool({ ...NOWHERE, leakAfterMs: 30 }), /milliseconds.*30_000/],
    ['a timeout of 0', () => createPool({ ...NOWHERE, acquireTimeoutMs: 0 }), /acquireTimeoutMs/],
    ['a negative timeout', () => createPool({ ...NOWHERE, acquireTimeoutMs: -1 }), /acquireTimeoutMs/],
    ['a timeout in words', () => createPool({ ...NOWHERE, acquireTimeoutMs: '5s' as never }), /acquireTimeoutMs.*'5s'/],
    ['a port that is none', () => createPool({ ...NOWHERE, port: 70_000 }), /port/],
    ['a host that is none', () => createPool({ ...NOWHERE, host: 5 as never }), /host must be a string/],
    [
      'a password that is an object',
      () => createPool({ ...NOWHERE, password: { value: SECRET } as never }),
      /password must be/,
    ],
    ['a wrong choice', () => createPool({ ...NOWHERE, onLeak: 'kill' as never }), /onLeak.*'warn' or 'reclaim'/],
    ['lanes on', () => createPool({ ...NOWHERE, lanes: 'on' as never }), /lanes/],
    ['queueLimit 0', () => createPool({ ...NOWHERE, queueLimit: 0 }), /queueLimit.*Infinity/],
    ['a driver that nobody knows', () => createPool({ ...NOWHERE, driver: 'pg' as never }), /driver.*'pg'/],
    ['a sessionInit that is a number', () => createPool({ ...NOWHERE, sessionInit: 5 as never }), /sessionInit/],
    ['driverOptions in words', () => createPool({ ...NOWHERE, driverOptions: 'x' as never }), /driverOptions/],
    ['nothing', () => createPool(undefined as never), /createPool takes/],
    ['null', () => createPool(null as never), /createPool takes/],
    ['a URL that cannot be parsed', () => createPool(`mysql://app:${SECRET}@host:port/shop`), /URL cannot be parsed/],
    ['a URL with a # in its password', () => createPool(`mysql://app:${SECRET}#1@db.example/shop`), /percent-encoded/],
    ['a URL with a / in its password', () => createPool(`mysql://app:${SECRET}/1@db.example/shop`), /percent-encoded/],
    [
      'a URL with a ? in its password of digits',
      () => createPool(`mysql://app:12?${SECRET}@db.example/shop`),
      /percent-encoded/,
    ],
    [
      'a URL with a / in its password of digits',
      () => createPool(`mysql://app:12/${SECRET}@db.example/shop`),
      /percent-encoded/,
    ],
    [
      'a URL with a # in its password of digits',
      () => createPool(`mysql://app:12#${SECRET}@db.example/shop`),
      /percent-encoded/,
    ],
    [
      'a URL with a % in its password',
      () => createPool(`mysql://app:100%${SECRET}@db.example/shop`),
      /percent-encoded/,
    ],
    [
      'a URL of something else',
      () => createPool(`postgres://app:${SECRET}@db.example/shop`),
      /mysql:\/\/ or mariadb:\/\//,
    ],
    ['an empty URL', () => createPool(''), /URL/],
    [
      'an unknown option in the URL',
      () => createPool(`mysql://app:${SECRET}@db.example/shop?connectionLimit=5`),
      /'connectionLimit' in the URL.*'max'/,
    ],
    ['max 0 in the URL', () => createPool(`mysql://app:${SECRET}@db.example/shop?max=0`), /max/],
    ['an empty max in the URL', () => createPool(`mysql://app:${SECRET}@db.example/shop?max=`), /max/],
    ['a URL as an option that cannot be parsed', () => createPool({ url: `app:${SECRET}@host` }), /URL/],
  ]

  test.each(BAD)('%s', (_, action, sentence) => {
    const error = codeOf(action)
    expect(error).toMatchObject({ name: 'HoldfastError', code: 'OPTION_INVALID', effect: 'none' })
    expect(error.message).toMatch(sentence)
    expect(inspect(error, { depth: 10, showHidden: true })).not.toContain(SECRET)
  })

  const CALLS: [string, (db: Pool) => Promise<unknown>, RegExp][] = [
    ['query', (db) => db.query('SELECT 1', [], { timeout: 5 } as never), /'timeout' of query\(\).*'timeoutMs'/],
    ['query, a timeout of 0', (db) => db.query('SELECT 1', [], { timeoutMs: 0 }), /timeoutMs of query\(\)/],
    ['query, a timeout in words', (db) => db.query('SELECT 1', [], { timeoutMs: '5' as never }), /timeoutMs/],
    ['query, NaN', (db) => db.query('SELECT 1', [], { timeoutMs: Number.NaN }), /timeoutMs/],
    [
      'query, a signal that is a controller',
      (db) => db.query('SELECT 1', [], { signal: new AbortController() as never }),
      /AbortSignal/,
    ],
    ['acquire', (db) => db.acquire({ timeout: 5 } as never), /'timeout' of acquire\(\)/],
    ['use', (db) => db.use(async () => {}, { timeOut: 5 } as never), /'timeOut'/],
    [
      'transaction',
      (db) => db.transaction(async () => {}, { isolationLevel: 'serializable' } as never),
      /'isolationLevel' of transaction\(\).*isolation/,
    ],
    [
      'transaction, an isolation that is none',
      (db) => db.transaction(async () => {}, { isolation: 'snapshot' as never }),
      /isolation must be one of/,
    ],
    ['transaction, retries', (db) => db.transaction(async () => {}, { retries: -1 }), /retries/],
    ['stream', async (db) => db.stream('SELECT 1', [], { timeout: 1 } as never), /'timeout' of stream\(\)/],
    ['drain', async (db) => db.drain({ timeout: 1 } as never), /'timeout' of drain\(\)/],
  ]
  test.each(CALLS)('of a call: %s', async (_, call, sentence) => {
    const db = createPool(NOWHERE)
    const { error } = await outcome(call(db))
    expect(error).toMatchObject({ code: 'OPTION_INVALID', effect: 'none' })
    expect(error?.message).toMatch(sentence)
    expect(db.stats()).toMatchObject({ held: 0, waiting: 0 })
    await db.drain()
  })

  test('a driver that is missing, or too old, is told with the command that mends it', async () => {
    const home = mkdtempSync(join(tmpdir(), 'holdfast-empty-'))
    try {
      cpSync(new URL('../../dist', import.meta.url), join(home, 'dist'), { recursive: true })
      writeFileSync(join(home, 'package.json'), '{ "name": "empty", "type": "module" }')
      writeFileSync(
        join(home, 'program.js'),
        `process.chdir(${JSON.stringify(home)})
         const { createPool } = await import('./dist/index.js')
         const told = {}
         for (const driver of [undefined, 'mysql2', 'mariadb']) {
           try { createPool({ host: '127.0.0.1', ...(driver && { driver }) }); told[driver] = 'taken' } catch (error) { told[driver] = error.code + ' ' + error.message }
         }
         process.send(told)`,
      )
      await using first = startProcess(join(home, 'program.js'))
      const missing = await first.next<Record<string, string>>()
      expect(missing['undefined']).toMatch(/^OPTION_INVALID .*npm install mysql2/)
      expect(missing['mysql2']).toMatch(/^OPTION_INVALID .*npm install mysql2/)
      expect(missing['mariadb']).toMatch(/^OPTION_INVALID .*npm install mariadb/)
      for (const [name, version] of [
        ['mysql2', '2.3.3'],
        ['mariadb', '2.5.6'],
      ] as const) {
        mkdirSync(join(home, 'node_modules', name), { recursive: true })
        writeFileSync(
          join(home, 'node_modules', name, 'package.json'),
          JSON.stringify({ name, version, main: 'index.js' }),
        )
        writeFileSync(join(home, 'node_modules', name, 'index.js'), 'module.exports = {}')
      }
      await using second = startProcess(join(home, 'program.js'))
      const old = await second.next<Record<string, string>>()
      for (const name of ['mysql2', 'mariadb'])
        expect(old[name]).toMatch(new RegExp(`^OPTION_INVALID .*${name} .* too old.*npm install ${name}@latest`))
    } finally {
      rmSync(home, { recursive: true, force: true })
    }
  })
})
