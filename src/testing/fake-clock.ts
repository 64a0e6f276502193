import type { Clock, Timer } from '../clock.js'

/** Time that passes only when a test says so. */
export class FakeClock implements Clock {
  #now = 0
  /** Set it higher to say that the machine was asleep. */
  jumps = 0
  /** Tasks by the time at which they are due: those of one time run in the order in which they were set. */
  readonly #due = new Map<number, Set<() => void>>()

  now(): number {
    return this.#now
  }

  after(ms: number, task: () => void): Timer {
    const due = this.#now + Math.max(0, ms)
    const tasks = this.#due.get(due) ?? new Set()
    this.#due.set(due, tasks)
    const own = (): void => task() // the same task may be set twice
    tasks.add(own)
    return {
      cancel: () => {
        tasks.delete(own)
        if (tasks.size === 0 && this.#due.get(due) === tasks) this.#due.delete(due)
      },
    }
  }

  /** Timers that are set. */
  get pending(): number {
    let count = 0
    for (const tasks of this.#due.values()) count += tasks.size
    return count
  }

  /** Lets time pass, running what is due in order and, after each task, whatever follows from it. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms
    await settle()
    for (let next = this.#earliest(end); next !== undefined; next = this.#earliest(end)) {
      this.#now = Math.max(this.#now, next)
      this.#take(next)?.()
      await settle()
    }
    this.#now = end
  }

  /** The process stood still: time passed and no timer ran. Those that are overdue run at the next `advance`. */
  jump(ms: number): void {
    this.#now += ms
  }

  #earliest(end: number): number | undefined {
    let earliest = Infinity
    for (const due of this.#due.keys()) if (due < earliest) earliest = due
    return earliest <= end ? earliest : undefined
  }

  #take(due: number): (() => void) | undefined {
    const tasks = this.#due.get(due)
    const [task] = tasks ?? []
    if (task) tasks?.delete(task)
    if (tasks?.size === 0) this.#due.delete(due)
    return task
  }
}

/** A turn of the event loop, before which every promise reaction and nextTick that is ready has run; then those of its own. */
async function settle(): Promise<void> {
  await new Promise(setImmediate)
  await new Promise(setImmediate)
}
