import { performance } from 'node:perf_hooks'
import { setImmediate as turn } from 'node:timers/promises'

/** What one round measured: numbers by column. NaN where there is nothing to measure. */
export type Sample = Readonly<Record<string, number>>

export interface Contender {
  readonly name: string
  /** A round that warms up may be short. */
  round(isWarmUp: boolean): Promise<Sample>
}

/** One contender's place in a contest: medians over the rounds. */
export interface Standing {
  readonly name: string
  readonly values: Sample
  /** To the first contender's, round by round: what slowed both of a pair down takes no part in it. */
  readonly ratios: Sample
  /** Of all rounds: of a time, what comes nearest to a machine with nothing else to do. */
  readonly least: Sample
}

// On a machine that is busy otherwise a contest ends before all its rounds, but not before these.
const LEAST_ROUNDS = 3
const LASTS_MS = 8_000

/** What each contender measured, by its name, round by round. */
export type Samples = ReadonlyMap<string, readonly Sample[]>

/** A contest whose first row is known before. */
export async function contest(contenders: readonly Contender[], rounds: number): Promise<Standing[]> {
  return standings(await takeTurns(contenders, rounds), (contenders[0] as Contender).name)
}

/**
 * Every contender once per round, each round beginning with another (A B C, B C A, ...), so that a neighbour's noise hits
 * all alike. A first round warms up and does not count.
 */
export async function takeTurns(
  contenders: readonly Contender[],
  rounds: number,
  lastsMs: number = LASTS_MS,
): Promise<Samples> {
  const end = performance.now() + lastsMs
  const samples = new Map(contenders.map(({ name }) => [name, [] as Sample[]]))
  for (let round = 0; round <= rounds && (round <= LEAST_ROUNDS || performance.now() < end); round++) {
    for (let turn = 0; turn < contenders.length; turn++) {
      const contender = contenders[(round + turn) % contenders.length] as Contender
      collectGarbage()
      const sample = await contender.round(round === 0)
      if (round > 0) samples.get(contender.name)?.push(sample)
    }
  }
  return samples
}

/** The rows of a table, `first` at its top: the one to which all are compared. */
export function standings(samples: Samples, first: string): Standing[] {
  const names = [first, ...[...samples.keys()].filter((name) => name !== first)]
  return names.map((name) => {
    const own = samples.get(name) as readonly Sample[]
    const of = (key: string): number[] => own.map((sample) => sample[key] ?? NaN)
    const each = (take: (key: string) => number): Sample =>
      Object.fromEntries(Object.keys(own[0] ?? {}).map((key) => [key, take(key)]))
    return {
      name,
      values: each((key) => median(of(key))),
      ratios: each((key) => ratio(samples, name, first, key)),
      least: each((key) => Math.min(...of(key))),
    }
  })
}

/** The median of the rounds' ratios. */
export function ratio(samples: Samples, name: string, to: string, key: string): number {
  const first = samples.get(to) ?? []
  return median((samples.get(name) ?? []).map((sample, round) => (sample[key] ?? NaN) / (first[round]?.[key] ?? NaN)))
}

export function median(numbers: readonly number[]): number {
  return quantile(Float64Array.from(numbers).sort(), 0.5)
}

/** Of numbers in ascending order. */
export function quantile(sorted: Float64Array, part: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? NaN
}

export type Cost = Readonly<Record<'cpuUs' | 'wallUs', number>>

/** What some work costs: time that passed, and CPU of this process with all its threads, the garbage collector's too. */
export async function measure(work: () => Promise<unknown>): Promise<Cost> {
  const cpu = process.cpuUsage()
  const started = performance.now()
  await work()
  const wallUs = (performance.now() - started) * 1000
  const { user, system } = process.cpuUsage(cpu)
  return { cpuUs: user + system, wallUs }
}

/** What each of the calls costs that can be made in some time, one after the other. */
export async function measureFor(lastsMs: number, call: (turn: number) => Promise<unknown>): Promise<Cost> {
  let turn = 0
  const { cpuUs, wallUs } = await measure(async () => {
    const end = performance.now() + lastsMs
    while (performance.now() < end) await call(turn++)
  })
  return { cpuUs: cpuUs / turn, wallUs: wallUs / turn }
}

/** What each of `count` calls costs. */
export async function measureEach(count: number, work: () => Promise<unknown>): Promise<Cost> {
  const { cpuUs, wallUs } = await measure(work)
  return { cpuUs: cpuUs / count, wallUs: wallUs / count }
}

export function collectGarbage(): void {
  globalThis.gc?.()
}

export async function heapUsed(): Promise<number> {
  collectGarbage()
  await turn()
  collectGarbage() // what the first has finalized
  return process.memoryUsage().heapUsed
}

/**
 * The longest time for which the event loop did not turn. Time in which the process had no CPU, because the machine had
 * something else to do, is left out.
 */
export class LoopWatch {
  #longestMs = 0
  #at = performance.now()
  #cpu = process.cpuUsage()
  #timer: NodeJS.Timeout | undefined

  constructor() {
    this.#look()
  }

  stop(): number {
    clearTimeout(this.#timer)
    this.#look()
    clearTimeout(this.#timer)
    return this.#longestMs
  }

  #look(): void {
    const [at, cpu] = [performance.now(), process.cpuUsage()]
    const usedMs = (cpu.user - this.#cpu.user + cpu.system - this.#cpu.system) / 1000
    this.#longestMs = Math.max(this.#longestMs, Math.min(at - this.#at, usedMs))
    this.#at = at
    this.#cpu = cpu
    this.#timer = setTimeout(() => this.#look(), 1)
  }
}
