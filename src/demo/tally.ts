import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { HoldfastError, type Effect } from '../index.js'
import { seconds, type Mark, type Side } from './outcome.js'

/** An error as its catcher sees it. */
export interface Failure {
  readonly name: string
  readonly message: string
  /** What the server may have done, where the error says so. */
  readonly effect?: Effect
}

/** One piece of work that a program gave to its pool, and how it ended. */
export interface Call {
  /** Marks the rows that it wrote. */
  readonly token: string
  readonly end: 'answered' | 'waiting' | Failure
  readonly ms: number
}

/** Awaits the work for so long and no longer; never rejects. */
export async function follow(token: string, work: Promise<unknown>, patienceMs = 30_000): Promise<Call> {
  const began = performance.now()
  const patience = new AbortController()
  const ends: Promise<Call['end']>[] = [
    work.then(
      () => 'answered',
      (error: unknown) => failureOf(error),
    ),
    sleep(patienceMs, 'waiting' as const, { signal: patience.signal, ref: false }).catch(() => 'waiting'),
  ]
  const end = await Promise.race(ends)
  patience.abort()
  return { token, end, ms: performance.now() - began }
}

export function failureOf(error: unknown): Failure {
  const { code, errno, message } = error as { code?: unknown; errno?: unknown; message: string }
  if (error instanceof HoldfastError) return { name: error.code, message, effect: error.effect }
  const number = typeof errno === 'number' && errno >= 1000 && errno < 5000 ? `${errno} ` : ''
  return { name: typeof code === 'string' ? `${number}${code}` : `"${message}"`, message }
}

/** The calls of one pool, counted. */
export class Tally {
  readonly calls: readonly Call[]

  constructor(calls: readonly Call[]) {
    this.calls = calls
  }

  get asked(): number {
    return this.calls.length
  }
  get answered(): number {
    return this.calls.filter(({ end }) => end === 'answered').length
  }
  /** Those without an answer or an error when we stopped waiting. */
  get waiting(): number {
    return this.calls.filter(({ end }) => end === 'waiting').length
  }
  get failures(): Failure[] {
    return this.calls.flatMap(({ end }) => (typeof end === 'object' ? [end] : []))
  }
  get slowestMs(): number {
    return Math.max(0, ...this.calls.map(({ ms }) => ms))
  }
  get allAnswered(): boolean {
    return this.answered === this.asked
  }
  /** The names of the errors, each once. */
  get names(): string[] {
    return [...new Set(this.failures.map(({ name }) => name))]
  }
  get facts(): Record<string, unknown> {
    const { asked, answered, waiting, slowestMs } = this
    const failed: Record<string, number> = {}
    for (const { name } of this.failures) failed[name] = (failed[name] ?? 0) + 1
    return { asked, answered, failed, waiting, slowestMs: Math.round(slowestMs) }
  }

  /** `10 of 10 answered within 0.6 s`; `7 of 10 failed: ECONNRESET`. */
  sentence(answered = 'answered'): string {
    const { asked, slowestMs, failures, waiting } = this
    if (this.allAnswered) return `${asked} of ${asked} ${answered} within ${seconds(slowestMs)}`
    const parts: string[] = []
    if (failures.length > 0) parts.push(`${failures.length} of ${asked} failed: ${this.names.join(', ')}`)
    if (waiting > 0) parts.push(`${waiting} of ${asked} hang: no answer and no error for ${seconds(slowestMs)}`)
    return parts.join('; ')
  }
}

/** What the table in the database says about the calls: nobody has to believe an error. */
export interface Audit {
  /** Calls whose rows are all there. */
  readonly done: number
  /** Calls whose rows are there more than once, and calls of which only some rows are there. */
  readonly twice: number
  readonly half: number
  /** Calls that were told what is not so. */
  readonly untrue: number
}

/** `rows`: how many each token left; `each`: how many it should leave. */
export function audit(calls: readonly Call[], rows: ReadonlyMap<string, number>, each = 1): Audit {
  const found = calls.map(({ token, end }) => ({ end, rows: rows.get(token) ?? 0 }))
  const count = (test: (call: (typeof found)[number]) => boolean): number => found.filter(test).length
  return {
    done: count(({ rows }) => rows >= each),
    twice: count(({ rows }) => rows > each),
    half: count(({ rows }) => rows > 0 && rows < each),
    untrue: count(({ end, rows }) => {
      if (end === 'answered') return rows !== each
      const effect = typeof end === 'object' ? end.effect : undefined
      return (effect === 'none' || effect === 'rolled-back') && rows > 0
    }),
  }
}

/** An error that says what the server may have done is worth something; a bare one leaves the question to the caller. */
export function markOf(side: Side, tally: Tally): Mark {
  if (tally.allAnswered) return 'well'
  return side === 'holdfast' && tally.waiting === 0 ? 'told' : 'failed'
}
