import { AbortGroups, Slices } from '../abort.js'
import { withoutStack, type HoldfastError } from '../errors.js'
import { Deadlines } from './deadlines.js'
import { aborted, type Lender } from './lender.js'
import { acquireSentence, acquireTimeout, connectFailed, poolClosed } from './sentences.js'
import type { Standing } from './standing.js'

export type WhyFailed = 'late' | 'aborted' | 'refused' | 'shut'

// Counts and ages in a sentence may be so old.
const SAME_STORY_MS = 5

/** Those who wait for a session, and how they fail: many at once, without blocking the event loop. */
export class Crowd {
  readonly #lender: Lender
  readonly #withdraw: (waiter: Standing, why: WhyFailed) => void
  readonly #deadlines: Deadlines<Standing>
  readonly #aborts: AbortGroups<Standing>
  readonly #failing: Record<WhyFailed, Slices<Standing>>
  #told: { readonly timeoutMs: number; readonly at: number; readonly sentence: string } | undefined = undefined

  /** `withdraw` is told of each that fails though it was not served before. */
  constructor(lender: Lender, withdraw: (waiter: Standing, why: WhyFailed) => void) {
    this.#lender = lender
    this.#withdraw = withdraw
    this.#deadlines = new Deadlines(lender.clock, (due) => this.fail(due, 'late'))
    this.#aborts = new AbortGroups((gone) => this.fail(gone, 'aborted'))
    const slices = (why: WhyFailed): Slices<Standing> => new Slices((waiter) => this.#failOne(waiter, why))
    this.#failing = {
      late: slices('late'),
      aborted: slices('aborted'),
      refused: slices('refused'),
      shut: slices('shut'),
    }
  }

  add(waiter: Standing): void {
    this.#deadlines.add(waiter, waiter.since)
    if (waiter.signal) this.#aborts.add(waiter.signal, waiter)
  }

  /** Served or failed: nothing of it remains. */
  left(waiter: Standing): void {
    this.#deadlines.remove(waiter)
    if (waiter.signal) this.#aborts.remove(waiter.signal, waiter)
  }

  /** Rejects those who stand in line still, and were not served meanwhile. */
  fail(waiters: Iterable<Standing>, why: WhyFailed): void {
    this.#failing[why].add(waiters)
  }

  /** A crowd that is late together is told the same. */
  lateness(timeoutMs: number): HoldfastError {
    const now = this.#lender.clock.now()
    if (this.#told?.timeoutMs !== timeoutMs || now - this.#told.at > SAME_STORY_MS) {
      this.#told = { timeoutMs, at: now, sentence: acquireSentence(this.#lender, timeoutMs) }
    }
    return acquireTimeout(this.#told.sentence, this.#lender.lastRefusal)
  }

  #failOne(waiter: Standing, why: WhyFailed): void {
    if (waiter.settled) return
    this.#withdraw(waiter, why)
    waiter.fail(withoutStack(() => this.#reason(waiter, why)))
  }

  #reason(waiter: Standing, why: WhyFailed): HoldfastError {
    if (waiter.signal?.aborted) return aborted(waiter.signal)
    if (why === 'shut') return poolClosed(this.#lender.options.name)
    if (why === 'refused') return connectFailed(this.#lender)
    return this.lateness(waiter.timeoutMs)
  }
}
