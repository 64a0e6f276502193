import type { HoldfastError } from '../errors.js'
import type { LaneStats } from '../stats.js'

/** Reads that share sessions, as far as the lender must know of them. */
export interface Sharers {
  /** How many wait in no line of the lender's. */
  readonly waiting: number
  /** Sessions that they hold without using them. */
  readonly idle: number
  /** One of those goes home, if there is one. */
  vacate(now: number): boolean
  /** Somebody waits for a session of his own while there are lanes. */
  claimed(): void
  shut(error: HoldfastError): void
  stats(): LaneStats
}
