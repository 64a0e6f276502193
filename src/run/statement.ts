import type { Result, Statement } from '../driver.js'
import { Fault, toFault, type Effect } from '../faults/fault.js'
import { announceFault } from '../pool/announce.js'
import { layGhost } from '../pool/ghost.js'
import type { Lender } from '../pool/lender.js'
import { isBounce } from '../pool/read-only.js'
import type { Slot } from '../pool/slot.js'
import { bounded, givenUp, UNBOUNDED, type Bounds } from './bounds.js'

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
  if (bounds === UNBOUNDED) return reply
  return bounded(lender.clock, reply, bounds, (why) => {
    lender.ghost(slot)
    void layGhost(lender, slot, reply)
    return givenUp(why, bounds, effect)
  })
}

// A session whose statement fell to a shutdown ends within milliseconds.
const ENDS_WITHIN_MS = 50

/** Classifies and announces a failure, and teaches the pool what it says about the other sessions. */
export async function noticed(lender: Lender, slot: Slot, error: unknown): Promise<Fault> {
  const fault = await inItsLight(lender, slot, toFault(error))
  announceFault(lender, slot, fault)
  // A server that takes no writes may have been a primary a moment ago: who connects anew finds the one that is now.
  const failedOver = fault.kind === 'read-only' && !isBounce(fault)
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
