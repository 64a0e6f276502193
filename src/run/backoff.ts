import { onAbort } from '../abort.js'
import type { Clock } from '../clock.js'
import { aborted } from '../pool/lender.js'

// Transactions that deadlocked must not meet again at once; lock holders are done within milliseconds as a rule.
const FIRST_MS = 5
const LONGEST_MS = 250

/** Exponential with full jitter: from 0 up to 5, 10, 20 ... 250 ms before attempt 2, 3, 4 ... */
export function backoffMs(attempt: number, random: () => number = Math.random): number {
  return random() * Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(attempt - 1, 16))
}

/** Keeps the process alive: somebody waits for what comes after. */
export function pause(clock: Clock, ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(aborted(signal))
    const timer = clock.after(
      ms,
      () => {
        release?.()
        resolve()
      },
      true,
    )
    const release =
      signal &&
      onAbort(signal, () => {
        timer.cancel()
        reject(aborted(signal))
      })
  })
}
