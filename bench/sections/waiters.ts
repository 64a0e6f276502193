import { performance } from 'node:perf_hooks'
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises'
import { heapUsed, LoopWatch, measure, median, type Standing } from '../contest.js'
import { holdfastPool, mariadb, mariadbOptions, type Setting } from '../pools.js'
import type { Pool } from '../../src/index.js'
import type { Table } from '../table.js'

const FEW = 10_000
const MANY = 100_000
// Callers come in portions, as in life: when the loop is blocked then, it is by the pool, and not by these lines.
const PORTION = 500
const ABORTED_AT_ONCE = 50 // an AbortController that aborts takes 20 us by itself
const LIMIT_MS = 20
const START_MS = 300
// After this nothing is repeated.
const LASTS_MS = 30_000

/** A crowd that waits, and how it is sent away. */
interface Scene {
  readonly name: string
  /** One more; resolves, and never rejects, when it was sent away. `dueAt`: when its time is up. */
  wait(dueAt: number): Promise<unknown>
  /** Sends all away. Without it they time out. */
  send?(): Promise<void>
  end?(): Promise<void>
}

type SceneMaker = (waitMs: number) => Promise<Scene>

/** All sessions are lent, and a crowd waits for one until its time is up, or its signal aborts. */
export async function waiters(setting: Setting): Promise<Table[]> {
  const holdfast = holdfastPool(setting, { max: 1, queueLimit: 1_000_000 })
  const lease = await holdfast.acquire()
  const makers: SceneMaker[] = [
    async (waitMs) => timedOut(holdfast, waitMs),
    ...(setting.quick ? [] : [async () => timedOutAtOnce(holdfast)]),
    async () => withdrawnTogether(holdfast),
    ...(setting.quick ? [] : [async () => withdrawnOneByOne(holdfast)]),
    (waitMs) => timedOutByMariadb(setting, waitMs),
  ]
  await play(makers[0] as SceneMaker, FEW, START_MS) // warms up
  const rounds = setting.quick ? 1 : 3
  const end = performance.now() + LASTS_MS
  const rows: Standing[] = []
  for (const maker of makers) {
    const few = await medianOf(rounds, end, maker, FEW)
    const many = await medianOf(rounds, end, maker, MANY)
    rows.push(few, { ...many, values: { ...many.values, growth: eachOf(many) / eachOf(few) } })
  }
  lease.release()
  await holdfast.drain()

  const ours = rows.filter((row) => row.name.startsWith('Holdfast'))
  const block = Math.max(...ours.map((row) => row.values['blockMs'] ?? NaN))
  return [
    {
      title: 'A crowd that waits in vain, because all sessions are lent',
      columns: [
        { key: 'count', head: 'waiters', digits: 0 },
        { key: 'joinUs', head: 'join CPU us', digits: 2 },
        { key: 'leaveUs', head: 'leave CPU us', digits: 2 },
        { key: 'growth', head: 'growth', digits: 2 },
        { key: 'totalMs', head: 'total ms', digits: 0 },
        { key: 'blockMs', head: 'block ms', digits: 1 },
        { key: 'bytes', head: 'bytes', digits: 0 },
      ],
      rows,
      notes: [
        `While a crowd leaves, Holdfast does not hold the event loop up for longer than ${block.toFixed(1)} ms; the limit is ${LIMIT_MS} ms: ${block <= LIMIT_MS ? 'kept' : 'MISSED'}.`,
        'join, leave: CPU for one waiter, with the work of the caller who makes a promise and catches its error. bytes: heap that one waiter takes. growth: join and leave of one in 100 000, to that of one in 10 000 (1 is linear). block: the longest that the loop did not turn while they left, less what other programs had of the CPU; most of it is the garbage collector, with the promises and errors of the callers.',
        'mysql2 has neither a time limit nor a signal for getConnection(), mariadb no signal.',
      ],
    },
  ]
}

function eachOf({ values }: Standing): number {
  return (values['joinUs'] ?? NaN) + (values['leaveUs'] ?? NaN)
}

async function medianOf(rounds: number, end: number, maker: SceneMaker, count: number): Promise<Standing> {
  const plays: Standing[] = []
  for (let waitMs = START_MS + count / 100; plays.length < (performance.now() < end ? rounds : 1);) {
    const standing = await play(maker, count, waitMs)
    if (standing === undefined) waitMs *= 2
    else plays.push(standing)
  }
  const { name, values } = plays[0] as Standing
  const of = (key: string): number[] => plays.map((one) => one.values[key] ?? NaN)
  return {
    name,
    values: Object.fromEntries(Object.keys(values).map((key) => [key, median(of(key))])),
    ratios: {},
    least: {},
  }
}

/** Undefined when some had left before all had come: more time is needed on this machine, at this moment. */
async function play(maker: SceneMaker, count: number, waitMs: number): Promise<Standing | undefined> {
  const scene = await maker(waitMs)
  const heapBefore = await heapUsed()
  const dueAt = performance.now() + waitMs
  let left = 0
  let allGone!: () => void
  const gone = new Promise<void>((resolve) => (allGone = resolve))
  const onLeave = (): void => {
    if (++left === count) allGone()
  }
  const join = await measure(async () => {
    for (let joined = 0; joined < count;) {
      for (const end = joined + PORTION; joined < end; joined++) void scene.wait(dueAt).then(onLeave)
      await turn()
    }
  })
  const bytes = ((await heapUsed()) - heapBefore) / count
  if (left > 0) {
    await gone
    await scene.end?.()
    return undefined
  }
  if (!scene.send) await sleep(dueAt - performance.now() - 5)
  let watch!: LoopWatch
  const leave = await measure(async () => {
    watch = new LoopWatch()
    await turn()
    await scene.send?.()
    await gone
    await turn()
  })
  const values = {
    count,
    joinUs: join.cpuUs / count,
    leaveUs: leave.cpuUs / count,
    totalMs: (join.wallUs + leave.wallUs) / 1000,
    blockMs: watch.stop(),
    bytes,
    growth: NaN,
  }
  await scene.end?.()
  return { name: scene.name, values, ratios: {}, least: {} }
}

function timedOut(pool: Pool, timeoutMs: number): Scene {
  return {
    name: 'Holdfast, timed out',
    wait: () => pool.acquire({ timeoutMs }).catch(seen),
  }
}

function timedOutAtOnce(pool: Pool): Scene {
  return {
    name: 'Holdfast, all due at once',
    wait: (dueAt) => pool.acquire({ timeoutMs: dueAt - performance.now() }).catch(seen),
  }
}

function withdrawnTogether(pool: Pool): Scene {
  const controller = new AbortController()
  return {
    name: 'Holdfast, one signal for all',
    wait: () => pool.acquire({ timeoutMs: 60_000, signal: controller.signal }).catch(seen),
    send: async () => controller.abort(),
  }
}

function withdrawnOneByOne(pool: Pool): Scene {
  const controllers: AbortController[] = []
  return {
    name: 'Holdfast, a signal for each',
    wait() {
      const controller = new AbortController()
      controllers.push(controller)
      return pool.acquire({ timeoutMs: 60_000, signal: controller.signal }).catch(seen)
    },
    async send() {
      for (const [index, controller] of controllers.entries()) {
        controller.abort()
        if (index % ABORTED_AT_ONCE === 0) await turn()
      }
    },
  }
}

/** Its time limit is an option of the pool, so each crowd has a pool of its own. */
async function timedOutByMariadb(setting: Setting, waitMs: number): Promise<Scene> {
  const pool = mariadb.createPool({ ...mariadbOptions(setting, 1), acquireTimeout: waitMs })
  const connection = await pool.getConnection()
  return {
    name: 'mariadb, timed out',
    wait: () => pool.getConnection().catch(seen),
    async end() {
      await connection.release()
      await pool.end()
    },
  }
}

function seen(): void {}
