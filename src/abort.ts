/** Members that share an AbortSignal share one listener on it: a thousand waiters, one entry in the signal's list. */
export class AbortGroups<Member extends object> {
  readonly #groups = new WeakMap<AbortSignal, { members: Set<Member>; listener: () => void }>()
  readonly #aborted: (members: Set<Member>, reason: unknown) => void

  constructor(aborted: (members: Set<Member>, reason: unknown) => void) {
    this.#aborted = aborted
  }

  add(signal: AbortSignal, member: Member): void {
    let group = this.#groups.get(signal)
    if (group === undefined) {
      const members = new Set<Member>()
      const listener = (): void => {
        this.#groups.delete(signal)
        this.#aborted(members, signal.reason)
      }
      group = { members, listener }
      this.#groups.set(signal, group)
      signal.addEventListener('abort', listener, { once: true })
    }
    group.members.add(member)
  }

  remove(signal: AbortSignal, member: Member): void {
    const group = this.#groups.get(signal)
    if (group === undefined || !group.members.delete(member) || group.members.size > 0) return
    signal.removeEventListener('abort', group.listener)
    this.#groups.delete(signal)
  }
}

// Rejecting a promise with an error of its own takes some microseconds; the event loop must not notice a crowd.
const SLICE_MS = 5
const LOOK_AT_THE_TIME_EVERY = 32

/** Works through a crowd without blocking the event loop for longer than a few milliseconds at a time. */
export function inSlices<T>(items: Iterable<T>, task: (item: T) => void): void {
  const iterator = items[Symbol.iterator]()
  const slice = (): void => {
    const started = performance.now()
    for (let count = 1; ; count++) {
      const { done, value } = iterator.next()
      if (done) return
      task(value)
      if (count % LOOK_AT_THE_TIME_EVERY === 0 && performance.now() - started > SLICE_MS) break
    }
    setImmediate(slice)
  }
  slice()
}
