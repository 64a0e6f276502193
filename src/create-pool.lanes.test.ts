import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { buildPool, type Pool } from './create-pool.js'
import { HoldfastError } from './errors.js'
import { LocalBudget } from './pool/local-budget.js'
import { resolveOptions, type PoolOptions } from './pool/options.js'
import { FakeClock } from './testing/fake-clock.js'
import { FakeDriver, type Fate } from './testing/fake-driver.js'

interface World {
  readonly clock: FakeClock
  readonly driver: FakeDriver
  readonly db: Pool
  readonly budget: LocalBudget
}

/** Statements with `slow` in their text take 700 ms, with `never` they never end, others no time. */
function world(options: PoolOptions = {}): World {
  const clock = new FakeClock()
  const driver = new FakeDriver(clock)
  driver.pipelines = true
  driver.fates = (step, session) => {
    const sql = session?.statements.at(-1) ?? ''
    if (step !== 'query') return 'ok'
    return sql.includes('never') ? 'never' : sql.includes('slow') ? 'slow' : 'ok'
  }
  const budget = new LocalBudget(clock)
  return { clock, driver, budget, db: buildPool(resolveOptions({ driver, budget, ...options }), clock) }
}

async function audit({ clock, driver, db, budget }: World): Promise<void> {
  const drained = db.drain({ timeoutMs: 5_000 })
  await clock.advance(6_000)
  await drained
  expect(driver.open).toEqual([])
  expect(db.stats()).toMatchObject({ held: 0, waiting: 0, lanes: { depth: 0 } })
  expect(budget.granted).toBe(0)
  expect(clock.pending).toBe(0)
}

async function rowOf(here: World, sql: string): Promise<{ threadId: number; sql: string }> {
  const { rows } = await here.db.query(sql)
  return rows[0]
}

const codeOf = (error: unknown): unknown => (error instanceof HoldfastError ? error.code : error)

describe('reads', () => {
  it('share one session, and each gets its own answer', async () => {
    const here = world()
    const asked = Array.from({ length: 500 }, (_, n) => `SELECT ${n} FROM t`)
    const answers = Promise.all(asked.map((sql) => rowOf(here, sql)))
    await here.clock.advance(100)
    expect((await answers).map((row) => row.sql)).toEqual(asked)
    expect(here.driver.dials).toBeLessThan(3)
    expect(here.db.stats().lanes).toMatchObject({ on: true, reads: { lane: 500, lease: 0 } })
    await audit(here)
  })

  it('that are slow have a session to themselves, and quick ones go by', async () => {
    const here = world({ max: 3 })
    const known = here.db.query('SELECT quick')
    await here.clock.advance(10)
    await known
    const slow = here.db.query('SELECT slow')
    await here.clock.advance(5)
    const quick = Promise.all(Array.from({ length: 100 }, () => here.db.query('SELECT quick')))
    await here.clock.advance(100)
    expect(await quick).toHaveLength(100)
    await here.clock.advance(1_000)
    await slow
    await audit(here)
  })

  it('of a form that is known to be slow leave one session to the quick', async () => {
    const here = world({ max: 3 })
    const known = Promise.all([here.db.query('SELECT quick'), here.db.query('SELECT slow')])
    await here.clock.advance(1_000)
    await known
    const warm = here.db.query('SELECT quick')
    await here.clock.advance(10)
    await warm
    const slow = Promise.all(Array.from({ length: 6 }, () => here.db.query('SELECT slow')))
    const quick = Promise.all(Array.from({ length: 100 }, () => here.db.query('SELECT quick')))
    await here.clock.advance(50)
    expect(await quick).toHaveLength(100)
    expect(here.db.stats().lane).toBe(2)
    await here.clock.advance(5_000)
    await slow
    await audit(here)
  })

  it('that stand behind one that overruns are run elsewhere', async () => {
    const here = world({ max: 2 })
    const known = here.db.query('SELECT 1 FROM t')
    await here.clock.advance(10)
    await known
    let first = true
    here.driver.fates = (step) => (step === 'query' && first ? ((first = false), 'slow') : 'ok')
    const answers = Array.from({ length: 50 }, (_, n) => rowOf(here, `SELECT ${n} FROM t`))
    await here.clock.advance(100)
    const rest = await Promise.all(answers.slice(1))
    expect(rest.map((row) => row.sql)).toEqual(rest.map((_, n) => `SELECT ${n + 1} FROM t`))
    expect(here.db.stats().lanes.moved).toBe(49)
    await here.clock.advance(1_000)
    expect((await answers[0]!).sql).toBe('SELECT 0 FROM t')
    await audit(here)
  })

  it('are run again when their session is lost, and nobody hears of it', async () => {
    const here = world({ max: 1 })
    const known = here.db.query('SELECT 1 FROM t')
    await here.clock.advance(10)
    await known
    here.driver.fates = () => 'slow'
    const asked = Array.from({ length: 100 }, (_, n) => `SELECT ${n} FROM t`)
    const answers = Promise.all(asked.map((sql) => rowOf(here, sql)))
    await here.clock.advance(10)
    here.driver.fates = () => 'ok'
    here.driver.open[0]!.die()
    await here.clock.advance(1_000)
    expect((await answers).map((row) => row.sql)).toEqual(asked)
    expect(here.db.stats().lanes.rerun).toBe(100)
    await audit(here)
  })

  it('that turn out to write run once more, on a lease, and the next of their kind at once', async () => {
    const here = world()
    const answer = here.db.query("SELECT writer FROM v WHERE a = 'a secret'")
    await here.clock.advance(10)
    await answer
    const next = here.db.query("SELECT writer FROM v WHERE a = 'another'")
    await here.clock.advance(10)
    await next
    const { bounces, reasons } = here.db.stats().lanes
    expect(bounces).toEqual([{ shape: 'SELECT writer FROM v WHERE a = ?', count: 1 }])
    expect(reasons).toEqual({ 'it writes (1792)': 1 })
    expect(here.driver.sessions.flatMap((session) => session.statements)).toHaveLength(2)
    await audit(here)
  })

  it('give way to a lease: it gets the next lane that runs empty', async () => {
    const here = world({ max: 1 })
    const known = here.db.query('SELECT 1 FROM t')
    await here.clock.advance(10)
    await known
    let running = true
    const caller = async (): Promise<void> => {
      while (running) {
        await here.db.query('SELECT 1 FROM t')
        await new Promise((resolve) => here.clock.after(1, () => resolve(undefined)))
      }
    }
    const callers = Promise.all(Array.from({ length: 20 }, caller))
    await here.clock.advance(20)
    const lease = here.db.acquire()
    await here.clock.advance(20)
    const got = await lease
    expect(here.db.stats()).toMatchObject({ leased: 1, lane: 0 })
    got.release()
    await here.clock.advance(20)
    expect(here.db.stats().leased).toBe(0)
    running = false
    await here.clock.advance(20)
    await callers
    await audit(here)
  })

  it('are given up by their deadline, without harm to others', async () => {
    const here = world({ max: 2 })
    const known = here.db.query('SELECT 1 FROM t')
    await here.clock.advance(10)
    await known
    let first = true
    here.driver.fates = (step) => (step === 'query' && first ? ((first = false), 'never') : 'ok')
    const stuck = here.db.query('SELECT 0 FROM t', [], { timeoutMs: 50 }).catch(codeOf)
    const others = Promise.all(Array.from({ length: 20 }, (_, n) => here.db.query(`SELECT ${n} FROM t`)))
    await here.clock.advance(1_000)
    expect(await stuck).toBe('QUERY_TIMEOUT')
    expect(await others).toHaveLength(20)
    await audit(here)
  })

  it('that wait for their turn are dropped when they are aborted', async () => {
    const here = world({ max: 1 })
    const known = here.db.query('SELECT 1 FROM t')
    await here.clock.advance(10)
    await known
    const gone = new AbortController()
    here.driver.fates = (step) => (step === 'query' ? 'slow' : 'ok')
    const first = here.db.query('SELECT 1 FROM t')
    const second = here.db.query('SELECT 2 FROM t', [], { signal: gone.signal }).catch(codeOf)
    await here.clock.advance(5)
    gone.abort()
    expect(await second).toBe('ABORTED')
    here.driver.fates = () => 'ok'
    await here.clock.advance(2_000)
    await first
    await audit(here)
  })
})

describe('lanes are off', () => {
  it.each([
    ['when they are not wanted', { lanes: 'off' as const }, () => undefined, "lanes: 'off'"],
    [
      'when the driver does not pipeline',
      {},
      (here: World) => (here.driver.pipelines = false),
      'the driver does not pipeline',
    ],
    ['when READ ONLY is not honoured', {}, (here: World) => (here.driver.honours = false), 'honour READ ONLY'],
  ])('%s, and stats() says why', async (_, options, spoil, reason) => {
    const here = world(options)
    spoil(here)
    const answers = Promise.all(Array.from({ length: 50 }, (_each, n) => rowOf(here, `SELECT ${n} FROM t`)))
    await here.clock.advance(100)
    expect(await answers).toHaveLength(50)
    const { lanes } = here.db.stats()
    expect(lanes.on).toBe(false)
    expect(lanes.reason).toContain(reason)
    await audit(here)
  })

  it('for one statement that says so', async () => {
    const here = world()
    const answer = here.db.query('SELECT 1', [], { lane: false })
    await here.clock.advance(10)
    await answer
    expect(here.db.stats().lanes).toMatchObject({
      on: true,
      reads: { lane: 0, lease: 1 },
      reasons: { 'lane: false': 1 },
    })
    await audit(here)
  })
})

// ---- any history

const moves = fc.array(
  fc.record({
    what: fc.constantFrom('read', 'read', 'read', 'read', 'slow', 'lease', 'kill', 'wait', 'wait', 'abort', 'refuse'),
    n: fc.nat(20),
  }),
  { maxLength: 60 },
)

it('every read gets its own answer, and every lease its session, whatever is lost on the way', async () => {
  await fc.assert(
    fc.asyncProperty(moves, fc.integer({ min: 1, max: 4 }), async (history, max) => {
      const here = world({ max, acquireTimeoutMs: 60_000 })
      const work: Promise<void>[] = []
      const asked = here.driver.fates
      let refusing: Fate = 'ok'
      here.driver.fates = (step, session) => (step === 'connect' ? refusing : asked(step, session))
      const read = async (sql: string, signal?: AbortSignal): Promise<void> => {
        try {
          const { rows } = await here.db.query(sql, [], signal && { signal })
          expect(rows[0].sql).toBe(sql)
        } catch (error) {
          if (codeOf(error) !== 'ABORTED' || !signal?.aborted) throw error
        }
      }
      for (const [at, { what, n }] of history.entries()) {
        if (what === 'read') work.push(read(`SELECT ${at} FROM t${n % 3}`))
        else if (what === 'slow') work.push(read(`SELECT slow FROM t WHERE a = ${at}`))
        else if (what === 'kill') here.driver.open[n % Math.max(1, here.driver.open.length)]?.die()
        else if (what === 'wait') await here.clock.advance(n * 5)
        else if (what === 'refuse') refusing = n % 2 ? 'ok' : 'fail'
        else if (what === 'abort') {
          const gone = new AbortController()
          work.push(read(`SELECT ${at} FROM t${n % 3}`, gone.signal))
          here.clock.after(n, () => gone.abort())
        } else {
          work.push(
            here.db.use(async () => {
              await new Promise((resolve) => here.clock.after(n, () => resolve(undefined)))
            }),
          )
        }
        expect(here.driver.open.length).toBeLessThanOrEqual(max)
      }
      refusing = 'ok'
      const done = Promise.all(work)
      for (let i = 0; i < 60; i++) await here.clock.advance(1_000)
      await done
      await audit(here)
    }),
    { numRuns: 150 },
  )
})
