import type { Result, Statement } from '../driver.js'
import type { HoldfastError } from '../errors.js'
import { events } from '../events.js'
import { Fault, toFault, type Effect } from '../faults/fault.js'
import { layGhost } from '../pool/ghost.js'
import { aborted, type Lender } from '../pool/lender.js'
import type { Slot } from '../pool/slot.js'
import { queryTimeout } from './failure.js'

/** How long a statement may take, and who may end it. */
export interface Bounds {
  readonly timeoutMs: number
  /** What the caller asked for, of which some may have gone into waiting for a session. */
  readonly askedMs?: number
  readonly signal: AbortSignal | undefined
}

export const UNBOUNDED: Bounds = { timeoutMs: Infinity, signal: undefined }

/**
 * Runs a statement on a leased slot. Rejects with a Fault; or, when time ran out or the signal aborted, at once with
 * QUERY_TIMEOUT or ABORTED: the slot is a ghost then, and no longer the caller's.
 */
export function runStatement(
  lender: Lender,
  slot: Slot,
  statement: Statement,
  bounds: Bounds,
  effect: Effect,
): Promise<Result> {
  const reply = slot.session!.query(statement)
  const { timeoutMs, signal } = bounds
  if (timeoutMs === Infinity && signal === undefined) return reply
  return new Promise((resolve, reject) => {
    const cut = (error: HoldfastError): void => {
      settle()
      lender.ghost(slot)
      void layGhost(lender, slot, reply)
      reject(error)
    }
    const onAbort = (): void => cut(aborted(signal as AbortSignal, effect))
    const timer =
      timeoutMs === Infinity
        ? undefined
        : lender.clock.after(timeoutMs, () => cut(queryTimeout(bounds.askedMs ?? timeoutMs, effect)))
    const settle = (): void => {
      timer?.cancel()
      signal?.removeEventListener('abort', onAbort)
    }
    signal?.addEventListener('abort', onAbort, { once: true })
    reply.then(
      (result) => (settle(), resolve(result)),
      (error: unknown) => (settle(), reject(error as Error)),
    )
  })
}

// A session whose statement fell to a shutdown ends within milliseconds.
const ENDS_WITHIN_MS = 50
const READ_ONLY_TRANSACTION = 1792

/** Classifies and announces a failure, and teaches the pool what it says about the other sessions. */
export async function noticed(lender: Lender, slot: Slot, error: unknown): Promise<Fault> {
  const fault = await inItsLight(lender, slot, toFault(error))
  if (events.fault.hasSubscribers) {
    events.fault.publish({ pool: lender.options.name, threadId: slot.session?.threadId ?? 0, fault })
  }
  // A server that takes no writes may have been a primary a moment ago: who connects anew finds the one that is now.
  const failedOver = fault.kind === 'read-only' && (fault.error as { errno?: number }).errno !== READ_ONLY_TRANSACTION
  if (failedOver) lender.retire(slot, 'read-only')
  if (failedOver || fault.session === 'lost') lender.suspect()
  return fault
}

/** A MySQL that shuts down says 1317 to what it ends, as it does for a KILL QUERY: the connection's end tells them apart. */
async function inItsLight(lender: Lender, { session }: Slot, fault: Fault): Promise<Fault> {
  if (fault.kind !== 'interrupted' || session?.server.flavour !== 'mysql') return fault
  const waited = new Promise<void>((resolve) => void lender.clock.after(ENDS_WITHIN_MS, resolve, true))
  await Promise.race([session.ended, waited])
  return session.alive ? fault : new Fault('shutdown', 'lost', fault.effect, fault.error)
}
