import { channel, type Channel } from 'node:diagnostics_channel'
import type { Fault } from './faults/fault.js'

/**
 * What happens in a pool, on node:diagnostics_channel. Subscribe with
 * `diagnostics_channel.subscribe('holdfast:leak', (message) => ...)`. Messages hold no password, value or statement text
 * with values. Durations are milliseconds.
 */
export interface Events {
  /** A session was opened. */
  opened: { pool: string; threadId: number; openedInMs: number }
  /** A dial was refused, or failed. */
  refused: { pool: string; fault: Fault }
  /** A session was lent. */
  acquired: { pool: string; threadId: number; waitedMs: number }
  /** A session came home. */
  released: { pool: string; threadId: number; usedMs: number }
  /** A session's pooled life ended. */
  retired: { pool: string; threadId: number; reason: string; livedMs: number }
  /** A statement failed. */
  fault: { pool: string; threadId: number; fault: Fault }
  /** Work is run again. */
  retry: { pool: string; what: 'statement' | 'transaction'; attempt: number; fault: Fault; inMs: number }
  /** A lease was held too long, or was never given back. */
  leak: {
    pool: string
    threadId: number
    heldMs: number
    takenAt: string
    lastSql: string | undefined
    inTransaction: boolean
    abandoned: boolean
  }
}

export type EventName = keyof Events

const NAMES = [
  'opened',
  'refused',
  'acquired',
  'released',
  'retired',
  'fault',
  'retry',
  'leak',
] as const satisfies readonly EventName[]

/** Ask `hasSubscribers` before building a message. */
export const events: { readonly [Name in EventName]: Channel<unknown, Events[Name]> } = Object.fromEntries(
  NAMES.map((name) => [name, channel(`holdfast:${name}`)]),
) as never
