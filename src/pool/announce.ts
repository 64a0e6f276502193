import { events } from '../events.js'
import type { Fault } from '../faults/fault.js'
import type { Lender } from './lender.js'
import type { Slot } from './slot.js'

export function announceFault(lender: Lender, { session }: Slot, fault: Fault): void {
  if (events.fault.hasSubscribers)
    events.fault.publish({ pool: lender.options.name, threadId: session?.threadId ?? 0, fault })
}

/** Counts it as well. */
export function announceRetry(
  lender: Lender,
  what: 'statement' | 'transaction',
  attempt: number,
  fault: Fault,
  inMs: number,
): void {
  lender.count('retries')
  if (events.retry.hasSubscribers) events.retry.publish({ pool: lender.options.name, what, attempt, fault, inMs })
}
