import diagnostics from 'node:diagnostics_channel'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, test } from 'vitest'
import type { Events, Lease } from '../../src/index.js'
import { startScript } from '../../src/testing/process.js'
import {
  DRIVERS,
  holdfastError,
  MARIADB,
  scene,
  sharedServer,
  soon,
  until,
  untilNotRunning,
  untilRunning,
  type DriverName,
} from './scene.js'

const TABLE = 'CREATE TABLE {db}.t (id INT PRIMARY KEY AUTO_INCREMENT, v INT)'

interface Warnings extends Disposable {
  readonly texts: string[]
  readonly events: Events['leak'][]
}

/** What is said of the leaks of one pool, which is known by its name. */
function listenTo(pool: string): Warnings {
  const texts: string[] = []
  const events: Events['leak'][] = []
  const onWarning = ({ name, message }: Error): void => {
    if (name === 'HoldfastLeak' && message.startsWith(`${pool}:`)) texts.push(message)
  }
  const onEvent = (message: unknown): void => {
    if ((message as Events['leak']).pool === pool) events.push(message as Events['leak'])
  }
  process.on('warning', onWarning)
  diagnostics.subscribe('holdfast:leak', onEvent)
  return {
    texts,
    events,
    [Symbol.dispose]() {
      process.off('warning', onWarning)
      diagnostics.unsubscribe('holdfast:leak', onEvent)
    },
  }
}

/** The line of this file from which it was called. */
function here(): string {
  const frame = new Error('where').stack?.split('\n').find((line, index) => index > 1 && line.includes('leaks.test.ts'))
  return /leaks\.test\.ts:\d+/.exec(frame ?? '')?.[0] ?? 'nowhere'
}

/** The same frame with another line. */
function linesOn(place: string, lines: number): string {
  const [file, line] = place.split(':')
  return `${file}:${Number(line) + lines}`
}

describe.each(DRIVERS.map((driver) => ({ driver })))('leaks with $driver', { concurrent: true }, ({ driver }) => {
  test('a lease that is held too long is reported, once, with where it was taken and what it does', async ({
    expect,
  }) => {
    const options = { driver, max: 2, leakAfterMs: 150, name: `warned by ${driver}`, setup: TABLE }
    await scene(await sharedServer(MARIADB), options, async ({ db }) => {
      using said = listenTo(`warned by ${driver}`)
      const place = here()
      const lease = await db.acquire()
      await lease.query('BEGIN')
      await lease.query("INSERT INTO t (v) SELECT 1 FROM DUAL WHERE 'hush-hush' <> ?", ['bound secret'])
      await until(() => said.texts.length > 0, 2_000)
      await sleep(700)
      expect(said.texts).toHaveLength(1)
      const text = said.texts[0] as string
      expect(text).toContain(linesOn(place, 1))
      expect(text).toContain('INSERT INTO t (v)')
      expect(text).toContain('a transaction is open')
      expect(text).not.toContain('hush')
      expect(text).not.toContain('secret')
      expect(said.events).toHaveLength(1)
      expect(said.events[0]).toMatchObject({ threadId: lease.threadId, inTransaction: true, abandoned: false })
      expect(said.events[0]?.heldMs).toBeGreaterThanOrEqual(150)
      expect(said.events[0]?.takenAt).toContain(linesOn(place, 1))
      expect(said.events[0]?.lastSql).toContain('INSERT INTO t (v)')
      expect(db.stats().total.leaks).toBe(1)
      // It is the holder's still.
      await lease.query('COMMIT')
      lease.release()
      expect((await db.query('SELECT COUNT(*) AS n FROM t')).rows).toEqual([{ n: 1 }])
    })
  })

  test('acquire, use and transaction name the line of the caller, cold, warm and after a wait', async ({ expect }) => {
    const options = { driver, max: 1, leakAfterMs: 300, name: `places of ${driver}` }
    await scene(await sharedServer(MARIADB), options, async ({ db }) => {
      using said = listenTo(`places of ${driver}`)
      const places: string[] = []
      const held = async (): Promise<void> => {
        const place = places.at(-1) as string
        const reports = places.filter((each) => each === place).length
        await until(() => said.texts.filter((text) => text.includes(place)).length === reports, 4_000)
      }
      const byAcquire = async (): Promise<void> => {
        places.push(linesOn(here(), 1))
        const lease = await db.acquire()
        await held()
        lease.release()
      }
      const byUse = async (): Promise<void> => {
        places.push(linesOn(here(), 1))
        await db.use(held)
      }
      const byTransaction = async (): Promise<void> => {
        places.push(linesOn(here(), 1))
        await db.transaction(held)
      }
      const byHelper = async (): Promise<void> => {
        const take = async (): Promise<Lease> => {
          places.push(linesOn(here(), 1))
          return await db.acquire()
        }
        const lease = await take()
        await held()
        lease.release()
      }
      for (const by of [byAcquire, byUse, byTransaction, byHelper]) {
        await by()
        const blocker = await db.acquire() // the next one has to wait
        const waits = by()
        await sleep(30)
        blocker.release()
        await waits
      }
      expect(new Set(places).size).toBe(4)
      for (const text of said.texts) expect(text).toContain('it ran nothing')
    })
  })

  test('no literal of the last statement is told, however it is written', async ({ expect }) => {
    const options = { driver, max: 20, leakAfterMs: 100, name: `literals of ${driver}` }
    await scene(await sharedServer(MARIADB), options, async ({ db }) => {
      using said = listenTo(`literals of ${driver}`)
      const statements = [
        "SELECT 'secret'",
        'SELECT "secret"',
        String.raw`SELECT 'it\'s secret', 1`,
        "SELECT 'it''s secret', 1",
        String.raw`SELECT 'x\\', 'secret'`,
        "SELECT N'secret', _utf8mb4'secret', x'5ec2e7', 0x5ec2e7",
        'SELECT 4111111111111111, 41111.11111, -4111111111111111',
        "SELECT 1 /* 'it's */, 'secret'",
        "SELECT 1 -- it's\n, 'secret'",
        "SELECT `it's` FROM (SELECT 1 AS `it's`) x WHERE 1 <> 'secret'",
        "SELECT DATE'2026-01-01', 'secret",
        `SELECT '${'x'.repeat(300)}secret'`,
      ]
      const leases = await Promise.all(statements.map(() => db.acquire()))
      await Promise.all(statements.map(async (sql, n) => leases[n]?.query(sql).catch(() => {})))
      await until(() => said.texts.length === statements.length, 3_000)
      const told = [...said.texts, ...said.events.map((event) => event.lastSql ?? '')]
      expect(told.filter((text) => /secret|4111|5ec2e7/i.test(text))).toEqual([])
      for (const lease of leases) lease.release()
    })
  })

  test('what is released in time, and statements of the pool, are no leaks', async ({ expect }) => {
    const options = { driver, max: 2, leakAfterMs: 800, name: `patience of ${driver}`, setup: TABLE }
    await scene(await sharedServer(MARIADB), options, async ({ db }) => {
      using said = listenTo(`patience of ${driver}`)
      const slow = db.query('SELECT SLEEP(1.6) AS s')
      for (let round = 0; round < 40; round++) await db.use((lease) => lease.query('SELECT SLEEP(0.02)'))
      for (let round = 0; round < 5; round++) {
        await db.transaction((tx) => tx.query('INSERT INTO t (v) SELECT 1 FROM (SELECT SLEEP(0.03)) s'))
      }
      for await (const _row of db.stream('SELECT SLEEP(0.5) AS s UNION ALL SELECT SLEEP(0.5)')) await sleep(100)
      await slow
      expect(said.texts).toEqual([])
      expect(db.stats().total.leaks).toBe(0)
    })
  })

  test('reclaim: the slot comes back, what was open is rolled back, and the holder is told', async ({ expect }) => {
    const options = {
      driver,
      max: 1,
      leakAfterMs: 500,
      onLeak: 'reclaim' as const,
      name: `reclaimed from ${driver}`,
      setup: TABLE,
    }
    await scene(await sharedServer(MARIADB), options, async ({ db, count }) => {
      using said = listenTo(`reclaimed from ${driver}`)
      const leaked = await db.acquire()
      await leaked.query('BEGIN')
      await leaked.query('INSERT INTO t (v) VALUES (1)')
      await leaked.query('SET @mine = 1')
      const next = await soon(db.acquire(), 2_000)
      expect(said.texts).toHaveLength(1)
      expect((await next.query('SELECT @mine AS mine')).rows).toEqual([{ mine: null }])
      expect(await count('t')).toBe(0)
      for (const call of [() => leaked.query('INSERT INTO t (v) VALUES (2)'), () => leaked.stream('SELECT 1').next()]) {
        const error = await holdfastError(call(), 'LEASE_ABANDONED')
        expect(error.effect).toBe('none')
        expect(error.message).toContain('500 ms')
      }
      leaked.release()
      leaked.release()
      expect(db.stats()).toMatchObject({ leased: 1, idle: 0 })
      expect((await next.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }])
      next.release()
      expect(await count('t')).toBe(0)
      expect(said.events).toMatchObject([{ abandoned: false, inTransaction: true }])
    })
  })

  test('reclaim under a statement, and with others in line: they reject, and the server ends it', async ({
    expect,
  }) => {
    const options = { driver, max: 2, leakAfterMs: 200, onLeak: 'reclaim' as const, setup: TABLE }
    const server = await sharedServer(MARIADB)
    await scene(server, options, async ({ db, account, count }) => {
      const leaked = await db.acquire()
      const slow = leaked.query('SELECT SLEEP(20) AS slept')
      const behind = leaked.query('INSERT INTO t (v) VALUES (1)')
      const told = Promise.allSettled([slow, behind])
      await untilRunning(server, account.user, 'slept')
      const [first, second] = await soon(told, 2_000)
      for (const each of [first, second]) {
        expect(each.status === 'rejected' && each.reason.code).toMatch(/^(LEASE_ABANDONED|SESSION_LOST)$/)
      }
      await untilNotRunning(server, account.user, 'slept', 2_000)
      await holdfastError(leaked.query('SELECT 1'), 'LEASE_ABANDONED')
      leaked.release()
      expect(await count('t')).toBe(0)
    })
  })

  test('reclaim while rows are read: the reader is told', async ({ expect }) => {
    const options = { driver, max: 2, leakAfterMs: 200, onLeak: 'reclaim' as const }
    await scene(await sharedServer(MARIADB), options, async ({ db }) => {
      const leaked = await db.acquire()
      const read = (async () => {
        for await (const _row of leaked.stream("SELECT REPEAT('x', 1000) FROM seq_1_to_100000")) await sleep(1)
      })()
      const error = await soon(
        read.then(
          () => undefined,
          (each) => each,
        ),
        4_000,
      )
      expect(error?.code).toMatch(/^(LEASE_ABANDONED|STREAM_BROKEN)$/)
      leaked.release()
    })
  })

  test('reclaim of a transaction: it is rolled back, not run again, and says so', async ({ expect }) => {
    const options = { driver, max: 1, leakAfterMs: 500, onLeak: 'reclaim' as const, setup: TABLE }
    await scene(await sharedServer(MARIADB), options, async ({ db, count }) => {
      let runs = 0
      const told = db.transaction(async (tx) => {
        runs++
        await tx.query('INSERT INTO t (v) VALUES (1)')
        await sleep(1_200)
        await tx.query('INSERT INTO t (v) VALUES (2)')
      })
      await holdfastError(told, 'LEASE_ABANDONED')
      expect(runs).toBe(1)
      const quiet = db.transaction(async (tx) => {
        await tx.query('INSERT INTO t (v) VALUES (3)')
        await sleep(1_200) // and COMMIT finds the session gone
      })
      await holdfastError(quiet, 'LEASE_ABANDONED')
      runs = 0
      const underWay = db.transaction(async (tx) => {
        runs++
        await tx.query('INSERT INTO t (v) VALUES (4)')
        await tx.query('SELECT SLEEP(20)')
      })
      await holdfastError(underWay, 'LEASE_ABANDONED')
      expect(runs).toBe(1)
      expect(await count('t')).toBe(0)
    })
  })

  test('a timeout in the line names the oldest lease, and how long it is held', async ({ expect }) => {
    await scene(await sharedServer(MARIADB), { driver, max: 2 }, async ({ db }) => {
      const place = here()
      const oldest = await db.acquire()
      await sleep(50)
      const younger = await db.acquire()
      const timeoutMs = 300
      for (const work of [
        () => db.acquire({ timeoutMs }),
        () => db.query('SELECT 1', [], { timeoutMs }),
        () => db.transaction(async () => {}, { timeoutMs }),
      ]) {
        const { message } = await holdfastError(work(), 'POOL_ACQUIRE_TIMEOUT')
        expect(message).toContain(linesOn(place, 1))
        expect(message).toMatch(/within 300 ms .*max 2.*leased 2.*waiting \d/)
        expect(message).toMatch(/\d+ m?s ago/)
      }
      oldest.release()
      younger.release()
    })
  })
})

describe.each(DRIVERS.map((driver) => ({ driver })))('garbage, with $driver', { concurrent: true }, ({ driver }) => {
  const CHILD = `
    import { setTimeout as sleep } from 'node:timers/promises'
    import { createPool } from './dist/index.js'
    const db = createPool(process.argv[1], { driver: process.argv[2], max: 1, acquireTimeoutMs: 5000, name: 'garbage' })
    process.on('unhandledRejection', (error) => process.send({ unhandled: String(error) }))
    const collect = async () => { for (let n = 0; n < 40; n++) { globalThis.gc(); await sleep(20) } }
    const lose = {
      idle: async () => { const lease = await db.acquire(); await lease.query('SELECT 1') },
      'in transaction': async () => {
        const lease = await db.acquire()
        await lease.query('BEGIN')
        await lease.query("INSERT INTO t (v) VALUES (1)")
        await lease.query('SET @mine = 1')
      },
      'under a statement': async () => { const lease = await db.acquire(); lease.query('SELECT SLEEP(0.3)').catch(() => {}) },
      'stream of a lease': async () => {
        const lease = await db.acquire()
        await lease.stream("SELECT REPEAT('x', 1000) FROM seq_1_to_100000").next()
      },
      'stream of the pool': async () => { await db.stream("SELECT REPEAT('x', 1000) FROM seq_1_to_100000").next() },
      'short stream of the pool': async () => { await db.stream('SELECT 1 UNION SELECT 2').next() },
    }
    const warnings = []
    process.on('warning', ({ message }) => warnings.push(message))
    for (const [what, how] of Object.entries(lose)) {
      warnings.length = 0
      await how()
      await collect()
      const began = performance.now()
      const told = await db.query('SELECT @mine AS mine, (SELECT COUNT(*) FROM t) AS n').then(({ rows }) => rows[0], (error) => error.message)
      process.send({ what, told, ms: performance.now() - began, warnings: [...warnings] })
      if (typeof told === 'string') break
    }
    await db.drain({ timeoutMs: 500 })
    process.send({ stats: db.stats() })
    process.disconnect()
  `

  test('a lease, or a stream, that nobody holds any more is taken back at once', async ({ expect }) => {
    await scene(await sharedServer(MARIADB), { driver, setup: TABLE }, async ({ account, count }) => {
      await using child = startScript(CHILD, {
        args: [account.url, driver],
        node: [process.execPath, '--expose-gc'],
      })
      const told = []
      for (const what of ['idle', 'in transaction', 'under a statement', 'stream of a lease']) {
        const message = await child.next<{ what: string; told: unknown; ms: number; warnings: string[] }>()
        told.push(message)
        expect(message, child.output).toMatchObject({ what, told: { mine: null, n: 0 } })
        expect(message.warnings, what).toHaveLength(1)
        expect(message.warnings[0]).toMatch(/garbage-collected/)
      }
      for (const what of ['stream of the pool', 'short stream of the pool']) {
        expect(await child.next(), child.output).toMatchObject({ what, told: { mine: null, n: 0 } })
      }
      expect(await child.next()).toMatchObject({ stats: { held: 0 } })
      expect(await child.exited).toEqual({ code: 0, signal: null })
      expect(await count('t')).toBe(0)
      expect(Math.min(...told.map(({ ms }) => ms))).toBeLessThan(1_000)
    })
  })
})

describe.each(DRIVERS.map((driver) => ({ driver })))(
  'a process, with $driver',
  ({ driver }: { driver: DriverName }) => {
    test('survives the report of a lease that ran a statement of many megabytes', async ({ expect }) => {
      await scene(await sharedServer(MARIADB), { driver }, async ({ account }) => {
        const text = `
        import { createPool } from './dist/index.js'
        const db = createPool(process.argv[1], { driver: process.argv[2], leakAfterMs: 100, name: 'large' })
        const warned = new Promise((resolve) => process.on('warning', resolve))
        const lease = await db.acquire()
        await lease.query("SELECT LENGTH('" + 'x'.repeat(15_000_000) + "') AS n")
        await warned
        lease.release()
        await db.drain()
        process.disconnect()
      `
        await using child = startScript(text, { args: [account.url, driver] })
        expect(await soon(child.exited, 10_000), child.output.slice(-2_000)).toEqual({ code: 0, signal: null })
        expect(child.output).toMatch(/large: a lease is held for \d+ ms.*SELECT LENGTH\(\?/)
        expect(child.output.length).toBeLessThan(2_000)
      })
    })

    test('that loses a lease and has nothing else to do ends, and says where it was lost', async ({ expect }) => {
      await scene(await sharedServer(MARIADB), { driver, setup: TABLE }, async ({ account }) => {
        const text = `
        import { createPool } from './dist/index.js'
        const db = createPool(process.argv[1], { driver: process.argv[2], leakAfterMs: 100, onLeak: 'reclaim', name: 'lost' })
        globalThis.kept = await db.acquire()
        process.disconnect()
      `
        await using child = startScript(text, { args: [account.url, driver] })
        expect(await soon(child.exited, 8_000)).toEqual({ code: 0, signal: null })
        expect(child.output).toMatch(/HoldfastLeak.*lost: a lease is held for \d+ ms/)
        await until(async () => (await (await sharedServer(MARIADB)).sessions(account.user)).length === 0)
      })
    })
  },
)
