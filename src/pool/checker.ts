import type { Clock } from '../clock.js'
import type { Session } from '../driver.js'
import type { Check } from './ledger.js'
import { cleanse, within } from './opener.js'
import type { SessionInit } from './options.js'
import type { Slot } from './slot.js'

// A live server answers a ping in a round trip; one that says nothing for this long is taken for gone.
const PING_WITHIN_MS = 1_000
// A reset, and what makes the session whole again, are a few round trips, and a rollback that may be long.
const RESET_WITHIN_MS = 5_000
// A check that takes longer does not hold its waiter up: another way is tried beside it.
const CHECK_STALLS_AFTER_MS = 200

/** What a check found. heard: the server answered; fit: nothing speaks against it. */
export type Finding = 'heard' | 'fit' | 'dead'

/** Is this session fit to lend? One that does not answer in time is destroyed. `stalled` is called when that takes long. */
export async function checkSlot(
  clock: Clock,
  slot: Slot,
  how: Check,
  sessionInit: SessionInit | undefined,
  stalled: () => void,
): Promise<Finding> {
  const session = slot.session as Session
  if (how === 'look') {
    // The socket's end, if the kernel has it already, is seen by the second turn at the latest.
    await new Promise((resolve) => setImmediate(() => setImmediate(resolve)))
    return session.alive ? 'fit' : 'dead'
  }
  const stall = clock.after(CHECK_STALLS_AFTER_MS, stalled)
  const { learned } = slot
  const isPing = how === 'ping' || learned === undefined
  const task = isPing ? () => session.ping() : () => cleanse(session, learned, sessionInit)
  const ms = how === 'ping' ? PING_WITHIN_MS : RESET_WITHIN_MS
  const answered = await within(clock, ms, undefined, task, () => new Error(`no answer within ${ms} ms`)).then(
    () => true,
    () => false,
  )
  stall.cancel()
  if (how === 'reset') slot.readOnly = false
  // A session that was shut down meanwhile is closed as any other.
  if (!answered) session.destroy()
  return answered ? 'heard' : 'dead'
}
