import fc from 'fast-check'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { buildPool, type Pool } from './create-pool.js'
import { HoldfastError } from './errors.js'
import { LocalBudget } from './pool/local-budget.js'
import { resolveOptions, type PoolOptions } from './pool/options.js'
import { FakeClock } from './testing/fake-clock.js'
import { FakeDriver, type Fate, type Step } from './testing/fake-driver.js'

function world(options: PoolOptions = {}): { clock: FakeClock; driver: FakeDriver; db: Pool; budget: LocalBudget } {
  const clock = new FakeClock()
  const driver = new FakeDriver(clock)
  const budget = new LocalBudget(clock)
  return { clock, driver, budget, db: buildPool(resolveOptions({ driver, budget, ...options }), clock) }
}

/** Nothing is left: no session, permit, timer, waiter. */
async function audit({ clock, driver, db, budget }: ReturnType<typeof world>): Promise<void> {
  const drained = db.drain({ timeoutMs: 5_000 })
  await clock.advance(6_000)
  await drained
  expect(driver.open).toEqual([])
  expect(db.stats()).toMatchObject({ held: 0, waiting: 0 })
  expect(budget.granted).toBe(0)
  expect(clock.pending).toBe(0)
}

function codeOf(error: unknown): unknown {
  return error instanceof HoldfastError ? error.code : error
}

describe('a pool', () => {
  it('opens nothing before it is wanted', async () => {
    const here = world()
    await here.clock.advance(1_000)
    expect(here.driver.dials).toBe(0)
    await audit(here)
  })

  it('settles an acquire by its deadline when the server never answers', async () => {
    const here = world({ acquireTimeoutMs: 300, connectTimeoutMs: 5_000 })
    here.driver.fates = () => 'never'
    const outcome = here.db.acquire().then(() => 'lent', codeOf)
    await here.clock.advance(305)
    expect(await outcome).toBe('POOL_ACQUIRE_TIMEOUT')
    await audit(here)
  })

  it('gives up a dial after connectTimeoutMs and tries again', async () => {
    const here = world({ connectTimeoutMs: 1_000, acquireTimeoutMs: 5_000 })
    here.driver.fates = () => (here.driver.dials === 1 ? 'never' : 'ok')
    const answer = here.db.query('SELECT 1')
    await here.clock.advance(2_000)
    expect((await answer).rows).toHaveLength(1)
    await audit(here)
  })

  it('serves its waiters while the server is down for a while, with few dials', async () => {
    const here = world()
    let up = false
    here.driver.fates = (step) => (step === 'connect' && !up ? 'fail' : 'ok')
    const answers = Promise.all(Array.from({ length: 200 }, () => here.db.query('SELECT 1')))
    await here.clock.advance(3_000)
    expect(here.driver.dials).toBeLessThan(20)
    up = true
    await here.clock.advance(1_000)
    expect(await answers).toHaveLength(200)
    await audit(here)
  })

  it('fails at once when the server denies', async () => {
    const here = world()
    here.driver.fates = () => 'fail'
    here.driver.refusal = 'denied'
    const outcomes = Promise.all(Array.from({ length: 20 }, () => here.db.query('SELECT 1').catch(codeOf)))
    await here.clock.advance(10)
    expect(new Set(await outcomes)).toEqual(new Set(['CONNECT_FAILED']))
    expect(here.driver.dials).toBe(1)
    await audit(here)
  })

  it('waits for a slow check no longer than it must when another session can be opened', async () => {
    const here = world({ max: 2, pingAfterMs: 1_000, idleTimeoutMs: 60_000 })
    const first = here.db.query('SELECT 1')
    await here.clock.advance(1)
    await first
    await here.clock.advance(2_000)
    here.driver.fates = (step) => (step === 'ping' ? 'never' : 'ok')
    const second = here.db.query('SELECT 2')
    await here.clock.advance(250)
    expect((await second).rows).toEqual([{ threadId: 2 }])
    await audit(here)
  })

  it('gives the session of a timed-out statement to nobody', async () => {
    const here = world({ max: 1, acquireTimeoutMs: 10_000 })
    here.driver.fates = (step, session) => (step === 'query' && session?.threadId === 1 ? 'never' : 'ok')
    const late = here.db.query('UPDATE t SET a = 1', [], { timeoutMs: 100 }).catch(codeOf)
    const next = here.db.query('SELECT 1')
    await here.clock.advance(100)
    expect(await late).toBe('QUERY_TIMEOUT')
    await here.clock.advance(2_000)
    expect((await next).rows).toEqual([{ threadId: 2 }])
    await audit(here)
  })

  it('resets a session before the next borrower when state was left behind, and only then', async () => {
    const here = world({ max: 1 })
    const resets: string[] = []
    here.driver.fates = (step) => (step === 'reset' && resets.push(step), 'ok')
    const work = (async () => {
      await here.db.query('SELECT 1')
      await here.db.query('INSERT INTO t (a) VALUES (1)')
      expect(resets).toHaveLength(0)
      await here.db.query('SET @a = 1')
      await here.db.query('SELECT 1')
      expect(resets).toHaveLength(1)
    })()
    await here.clock.advance(10)
    await work
    await audit(here)
  })

  it('keeps a quiet lease alive by pings', async () => {
    const here = world({ pingAfterMs: 1_000, leakAfterMs: 1_000_000 })
    const pings: string[] = []
    here.driver.fates = (step) => (step === 'ping' && pings.push(step), 'ok')
    const acquiring = here.db.acquire()
    await here.clock.advance(1)
    const lease = await acquiring
    await here.clock.advance(5_000)
    expect(pings.length).toBeGreaterThanOrEqual(3)
    lease.release()
    await audit(here)
  })

  it('settles every acquire in time, lends no session twice and loses nothing, whatever the server does', async () => {
    const steps: Step[] = ['connect', 'query', 'ping', 'reset', 'close']
    const fate = fc.constantFrom<Fate>('ok', 'ok', 'ok', 'ok', 'fail', 'slow', 'never')
    const act = fc.oneof(
      fc.record({
        do: fc.constant('query' as const),
        sql: fc.constantFrom('SELECT 1', 'SET @a = 1'),
        timeoutMs: fc.constantFrom(undefined, 50, 2_000),
      }),
      fc.record({ do: fc.constant('lease' as const), holdMs: fc.integer({ min: 0, max: 3_000 }) }),
      fc.record({ do: fc.constant('transaction' as const) }),
      fc.record({ do: fc.constant('pass' as const), ms: fc.integer({ min: 1, max: 40_000 }) }),
      fc.record({ do: fc.constant('kill' as const), which: fc.nat(5) }),
      fc.record({ do: fc.constant('freeze' as const), ms: fc.integer({ min: 1, max: 400_000 }) }),
    )
    await fc.assert(
      fc.asyncProperty(
        fc.array(act, { maxLength: 25 }),
        fc.array(fate, { minLength: 5, maxLength: 40 }),
        fc.integer({ min: 1, max: 4 }),
        async (acts, fates, max) => {
          const here = world({ max, acquireTimeoutMs: 1_000, connectTimeoutMs: 800 })
          let at = 0
          here.driver.fates = (step) => (steps.includes(step) ? (fates[at++ % fates.length] ?? 'ok') : 'ok')
          const outcomes: Promise<unknown>[] = []
          const waitedTooLong: number[] = []
          let frozenMs = 0
          const timed = async (work: Promise<unknown>): Promise<void> => {
            const began = here.clock.now() - frozenMs
            await work.catch((error: unknown) => {
              expect(error, String(error)).toBeInstanceOf(HoldfastError)
              const took = here.clock.now() - frozenMs - began
              if ((error as HoldfastError).code === 'POOL_ACQUIRE_TIMEOUT' && took > 10_000) waitedTooLong.push(took)
            })
          }
          for (const one of acts) {
            if (one.do === 'query')
              outcomes.push(
                timed(
                  here.db.query(one.sql, [], one.timeoutMs === undefined ? undefined : { timeoutMs: one.timeoutMs }),
                ),
              )
            else if (one.do === 'lease') {
              outcomes.push(
                timed(
                  here.db.use(async (lease) => {
                    await new Promise<void>((resolve) => here.clock.after(one.holdMs, resolve))
                    await lease.query('SELECT 1', [], { timeoutMs: 5_000 })
                  }),
                ),
              )
            } else if (one.do === 'transaction') {
              outcomes.push(
                timed(
                  here.db.transaction(async (tx) => void (await tx.query('UPDATE t SET a = 1')), { timeoutMs: 5_000 }),
                ),
              )
            } else if (one.do === 'pass') await here.clock.advance(one.ms)
            else if (one.do === 'freeze') {
              here.clock.jump(one.ms)
              frozenMs += one.ms
            } else here.driver.open[one.which % Math.max(1, here.driver.open.length)]?.die()
          }
          // Every statement without a limit of its own must come to its end: from here on the server answers.
          here.driver.fates = () => 'ok'
          for (const session of here.driver.open) if (session.users > 0) session.die()
          await here.clock.advance(30_000)
          await Promise.race([
            Promise.all(outcomes),
            sleep(2_000).then(() => expect.unreachable('work that never settled')),
          ])
          expect(waitedTooLong).toEqual([])
          await audit(here)
        },
      ),
      { numRuns: 300, timeout: 5_000 },
    )
  }, 60_000)
})
