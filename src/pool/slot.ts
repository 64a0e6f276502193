import type { Permit } from '../budget.js'
import type { Session } from '../driver.js'
import type { LeaseNote } from './lease-note.js'
import type { Learned } from './limits.js'

/** Where a slot is. Every place counts against the ceiling: the server still knows the session, or soon will. */
export const PLACES = ['opening', 'idle', 'checking', 'lane', 'leased', 'closing', 'ghost'] as const
export type Place = (typeof PLACES)[number]

/** Why a session's pooled life ended. */
export type RetireReason =
  | 'idle' // nobody wanted it for idleTimeoutMs, or others need its place
  | 'lifetime' // older than maxLifetimeMs
  | 'lost' // the connection ended by itself
  | 'unfit' // it failed a check
  | 'unclean' // it could not be reset
  | 'ghost' // its statement was cut off and the server let go of it
  | 'read-only' // the server behind it takes no more writes
  | 'revoked' // the budget wants its permit back
  | 'drain'

/** A place in the pool, from the permit to open a session until the server has let go of it. */
export class Slot {
  readonly id: number
  /** Written by the ledger's one mover only. */
  place: Place = 'opening'
  session: Session | undefined = undefined
  permit: Permit | undefined = undefined
  learned: Learned | undefined = undefined
  /** Who has it, when it was lent by acquire, use or transaction. */
  lease: LeaseNote | undefined = undefined
  dialledAt = 0
  openedAt = 0
  expiresAt: number = Infinity
  /** When the server last answered on it: quiet since then. */
  heardAt = 0
  /** When the application last gave it back: idle since then. */
  idleSince = 0
  leasedAt = 0
  /** Its check takes so long that its waiter is served elsewhere. */
  stalled: boolean = false
  /** Its transactions are READ ONLY for good, by the wish of the user or the server. */
  isForReading = false
  /** We have set it READ ONLY, for a lane. */
  readOnly: boolean = false
  /** Why reads cannot share it. */
  noLane: string | undefined = undefined
  /** The quickest answer so far: how long a statement is under way of which the server's own time is nothing. */
  roundTripMs: number = Infinity
  /** Set while leased: it is closed, for this reason, when it comes home. */
  retire: RetireReason | undefined = undefined

  constructor(id: number) {
    this.id = id
  }
}
