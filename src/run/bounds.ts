import { onAbort } from '../abort.js'
import type { Clock } from '../clock.js'
import type { HoldfastError } from '../errors.js'
import type { Effect } from '../faults/fault.js'
import { aborted } from '../pool/lender.js'
import { queryTimeout } from './failure.js'

/** How long a statement may take, and who may end it. */
export interface Bounds {
  readonly timeoutMs: number
  /** What the caller asked for, of which some may have gone into waiting for a session. */
  readonly askedMs?: number
  readonly signal: AbortSignal | undefined
}

export const UNBOUNDED: Bounds = { timeoutMs: Infinity, signal: undefined }

type Why = 'late' | 'aborted'

/**
 * Settles with the work; or at once, when the time is up or the signal aborts, with what `cut` gives. The work itself
 * goes on.
 */
export function bounded<T>(
  clock: Clock,
  work: Promise<T>,
  bounds: Bounds,
  cut: (why: Why) => HoldfastError,
): Promise<T> {
  const { timeoutMs, signal } = bounds
  if (timeoutMs === Infinity && signal === undefined) return work
  return new Promise((resolve, reject) => {
    const giveUp = (why: Why): void => {
      settle()
      reject(cut(why))
    }
    if (signal?.aborted) return reject(cut('aborted'))
    const release = signal && onAbort(signal, () => giveUp('aborted'))
    const timer = timeoutMs === Infinity ? undefined : clock.after(timeoutMs, () => giveUp('late'))
    const settle = (): void => {
      timer?.cancel()
      release?.()
    }
    work.then(
      (value) => (settle(), resolve(value)),
      (error: unknown) => (settle(), reject(error as Error)),
    )
  })
}

/** What the caller of a statement that was given up gets. */
export function givenUp(why: Why, { timeoutMs, askedMs, signal }: Bounds, effect: Effect): HoldfastError {
  return why === 'late' ? queryTimeout(askedMs ?? timeoutMs, effect) : aborted(signal as AbortSignal, effect)
}
