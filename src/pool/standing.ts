import type { Slot } from './slot.js'
import type { Line, Waiter } from './waiter.js'

/** What a waiter's end is told to. */
interface Home {
  served(waiter: Standing, slot: Slot): void
  /** Served or failed: nothing of it may remain. */
  left(waiter: Standing): void
}

/** A waiter with a promise behind it. */
export class Standing implements Waiter {
  before: Waiter | undefined = undefined
  behind: Waiter | undefined = undefined
  line: Line<Waiter> | undefined = undefined
  settled = false
  readonly deadline: number
  readonly since: number
  readonly timeoutMs: number
  readonly signal: AbortSignal | undefined
  readonly isErrand: boolean
  readonly forLane: boolean
  readonly #home: Home
  readonly #resolve: (slot: Slot) => void
  readonly #reject: (error: unknown) => void

  constructor(
    home: Home,
    resolve: (slot: Slot) => void,
    reject: (error: unknown) => void,
    now: number,
    timeoutMs: number,
    signal: AbortSignal | undefined,
    what?: 'errand' | 'lane',
  ) {
    this.#home = home
    this.#resolve = resolve
    this.#reject = reject
    this.since = now
    this.deadline = now + timeoutMs
    this.timeoutMs = timeoutMs
    this.signal = signal
    this.isErrand = what === 'errand'
    this.forLane = what === 'lane'
  }

  serve(slot: Slot): void {
    this.settled = true
    this.#home.served(this, slot)
    this.#resolve(slot)
  }

  fail(error: unknown): void {
    this.settled = true
    this.#home.left(this)
    this.#reject(error)
  }
}
