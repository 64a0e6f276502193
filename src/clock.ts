/** A task that will run once unless it is cancelled. Cancelling twice, or after it ran, does nothing. */
export interface Timer {
  cancel(): void
}

/** All time in Holdfast comes through this port, so that tests can own it. Milliseconds throughout. */
export interface Clock {
  /** Never goes back, and counts the time that the process was stopped. Its zero means nothing. */
  now(): number
  /** How often the wall clock has gained on `now()`: the machine was asleep, and its sessions are older than they look. */
  readonly jumps: number
  /** Runs `task` once, no earlier than `ms` from now. The process may exit before that, unless `keepAlive`. */
  after(ms: number, task: () => void, keepAlive?: boolean): Timer
}

/** A wall clock that gains more than this on the monotonic one was asleep, or was set forward. */
const JUMP_MS = 1_000

// setTimeout fires at once for anything longer.
const LONGEST_TIMER_MS = 2 ** 31 - 1

/**
 * Linux does not count a suspended machine's sleep in its monotonic clock, but a session that slept for an hour is as dead as
 * one that idled for an hour. Deadlines and leases go by the monotonic clock alone: a clock that is set forward looks like
 * sleep, and costs no more than a ping for each session.
 */
function createSystemClock(): Clock {
  let jumps = 0
  let offset = Date.now() - performance.now()
  return {
    now: () => performance.now(),
    get jumps() {
      const gained = Date.now() - performance.now() - offset
      if (gained > JUMP_MS || gained < -JUMP_MS) {
        offset += gained
        if (gained > 0) jumps++
      }
      return jumps
    },
    after(ms, task, keepAlive = false) {
      const handle = setTimeout(task, Math.min(Math.max(0, ms), LONGEST_TIMER_MS))
      if (!keepAlive) handle.unref()
      return { cancel: () => clearTimeout(handle) }
    },
  }
}

export const systemClock: Clock = createSystemClock()

/** Runs `task` again and again, until it is cancelled. The process may exit meanwhile. */
export function every(clock: Clock, ms: number, task: () => void): Timer {
  let timer: Timer
  const arm = (): void => {
    timer = clock.after(ms, () => {
      arm()
      task()
    })
  }
  arm()
  return { cancel: () => timer.cancel() }
}
