import type { Slot } from './slot.js'

/** One standing in line. Served, failed or withdrawn, whichever comes first, and only once. */
export interface Waiter {
  /** Absolute, in the clock's milliseconds. */
  readonly deadline: number
  readonly signal: AbortSignal | undefined
  /** The pool's own: to end a statement on the server. */
  readonly isErrand: boolean
  /** It wants a session to make a lane of. */
  readonly forLane: boolean
  serve(slot: Slot): void
  fail(error: unknown): void
  /** @internal the line's own links */
  before: Waiter | undefined
  /** @internal */
  behind: Waiter | undefined
  /** @internal */
  line: Line<Waiter> | undefined
}

/** What can stand in a line; in one at a time. The links are the line's own. */
interface Linked<One extends Linked<One>> {
  before: One | undefined
  behind: One | undefined
  line: Line<One> | undefined
}

/** First come, first served; joining, leaving (from anywhere) and looking at the first are O(1). */
export class Line<One extends Linked<One>> {
  #first: One | undefined = undefined
  #last: One | undefined = undefined
  #length = 0

  get first(): One | undefined {
    return this.#first
  }

  get length(): number {
    return this.#length
  }

  join(waiter: One): void {
    waiter.line = this
    waiter.before = this.#last
    waiter.behind = undefined
    if (this.#last) this.#last.behind = waiter
    else this.#first = waiter
    this.#last = waiter
    this.#length++
  }

  /** To the head of the line: for the pool's own errands, on which a slot's release depends. */
  joinFirst(waiter: One): void {
    waiter.line = this
    waiter.before = undefined
    waiter.behind = this.#first
    if (this.#first) this.#first.before = waiter
    else this.#last = waiter
    this.#first = waiter
    this.#length++
  }

  /** True when the waiter stood in this line. */
  leave(waiter: One): boolean {
    if (waiter.line !== this) return false
    if (waiter.before) waiter.before.behind = waiter.behind
    else this.#first = waiter.behind
    if (waiter.behind) waiter.behind.before = waiter.before
    else this.#last = waiter.before
    waiter.line = waiter.before = waiter.behind = undefined
    this.#length--
    return true
  }

  leaveAll(which: (waiter: One) => boolean = () => true): One[] {
    const all: One[] = []
    for (let waiter = this.#first; waiter;) {
      const { behind } = waiter
      if (which(waiter)) {
        this.leave(waiter)
        all.push(waiter)
      }
      waiter = behind
    }
    return all
  }
}
