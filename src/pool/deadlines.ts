import type { Clock, Timer } from '../clock.js'

// Waiters that are due within the same few milliseconds share a timer, which is late by at most this.
const GRAIN_MS = 4

interface Due {
  /** Absolute, in the clock's milliseconds; never when it is Infinity. */
  readonly deadline: number
}

interface Bucket<Waiter> {
  readonly waiters: Set<Waiter>
  readonly timer: Timer
}

/**
 * Tells when waiters are due. Adding and removing are O(1) whatever the deadlines; a hundred thousand waiters take a
 * few dozen timers. The timers keep the process alive: somebody waits.
 */
export class Deadlines<Waiter extends Due> {
  readonly #clock: Clock
  readonly #due: (waiters: Set<Waiter>) => void
  readonly #buckets = new Map<number, Bucket<Waiter>>()

  constructor(clock: Clock, due: (waiters: Set<Waiter>) => void) {
    this.#clock = clock
    this.#due = due
  }

  add(waiter: Waiter, now: number): void {
    if (waiter.deadline === Infinity) return
    const at = this.#key(waiter)
    let bucket = this.#buckets.get(at)
    if (bucket === undefined) {
      const timer = this.#clock.after(at * GRAIN_MS - now, () => this.#ring(at), true)
      bucket = { waiters: new Set(), timer }
      this.#buckets.set(at, bucket)
    }
    bucket.waiters.add(waiter)
  }

  remove(waiter: Waiter): void {
    const at = this.#key(waiter)
    const bucket = this.#buckets.get(at)
    if (bucket === undefined || !bucket.waiters.delete(waiter) || bucket.waiters.size > 0) return
    bucket.timer.cancel()
    this.#buckets.delete(at)
  }

  #key(waiter: Waiter): number {
    return Math.ceil(waiter.deadline / GRAIN_MS)
  }

  #ring(at: number): void {
    const bucket = this.#buckets.get(at)
    this.#buckets.delete(at)
    if (bucket) this.#due(bucket.waiters)
  }
}
