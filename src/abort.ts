/** Members that share an AbortSignal share one listener on it: a thousand waiters, one entry in the signal's list. */
export class AbortGroups<Member extends object> {
  readonly #groups = new WeakMap<AbortSignal, { members: Set<Member>; listener: () => void }>()
  readonly #aborted: (members: Set<Member>) => void

  constructor(aborted: (members: Set<Member>) => void) {
    this.#aborted = aborted
  }

  add(signal: AbortSignal, member: Member): void {
    let group = this.#groups.get(signal)
    if (group === undefined) {
      const members = new Set<Member>()
      const listener = (): void => {
        this.#groups.delete(signal)
        this.#aborted(members)
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

const calls = new AbortGroups<() => void>((tasks) => {
  for (const task of tasks) task()
})

/**
 * Runs `task` when the signal aborts, and gives what takes it back. However many wait for one signal, they share a
 * listener: Node warns of more than ten. The signal must not have aborted yet.
 */
export function onAbort(signal: AbortSignal, task: () => void): () => void {
  calls.add(signal, task)
  return () => calls.remove(signal, task)
}

/**
 * Aborts with whichever aborts first. `AbortSignal.any` would leave a trace of each call in a signal that lives long; this
 * is over with `release`.
 */
export function either(one: AbortSignal, other: AbortSignal): { signal: AbortSignal; release: () => void } {
  const controller = new AbortController()
  const releases = [one, other].map((signal) => {
    const abort = (): void => controller.abort(signal.reason)
    if (!signal.aborted) return onAbort(signal, abort)
    abort()
    return () => undefined
  })
  return { signal: controller.signal, release: () => releases.forEach((release) => release()) }
}

// Rejecting a promise with an error of its own takes some microseconds; the event loop must not notice a crowd.
const SLICE_MS = 3
const LOOK_AT_THE_TIME_EVERY = 16

/** Works through crowds, one after the other, without blocking the event loop for longer than a few milliseconds at a time. */
export class Slices<T> {
  readonly #task: (item: T) => void
  readonly #crowds: Iterator<T>[] = []

  constructor(task: (item: T) => void) {
    this.#task = task
  }

  add(items: Iterable<T>): void {
    this.#crowds.push(items[Symbol.iterator]())
    if (this.#crowds.length === 1) this.#slice()
  }

  #slice(): void {
    const started = performance.now()
    for (let count = 1; this.#crowds[0] !== undefined; count++) {
      const { done, value } = this.#crowds[0].next()
      if (done) this.#crowds.shift()
      else this.#task(value)
      if (count % LOOK_AT_THE_TIME_EVERY === 0 && performance.now() - started > SLICE_MS) {
        setImmediate(() => this.#slice())
        return
      }
    }
  }
}
