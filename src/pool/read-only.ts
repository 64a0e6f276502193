import type { Clock } from '../clock.js'
import type { Answer, Result, Server, Session, Statement } from '../driver.js'
import { isBefore } from '../version.js'
import { onlyValue } from './limits.js'
import type { Slot } from './slot.js'

const READ_ONLY = { sql: 'SET SESSION TRANSACTION READ ONLY' }
const READ_WRITE = { sql: 'SET SESSION TRANSACTION READ WRITE' }
/**
 * On MySQL 9.7, MariaDB 10.11 and 11.8: refused with 1792 where READ ONLY holds, whatever the user may do and though the
 * server itself takes no writes; and with 1044 everywhere else. It never has an effect.
 */
const PROBE = { sql: 'DROP PROCEDURE IF EXISTS information_schema.holdfast_probe' }
const READ_ONLY_TRANSACTION = 1792

/** Whether reads may share a session. */
export interface Sharing {
  /** Why they may not. */
  readonly noLane?: string | undefined
  /** Of a question and its answer. */
  readonly roundTripMs?: number
  /** Its transactions were READ ONLY already, by the wish of the user or the server. */
  readonly isReadOnly?: boolean
}

/**
 * Asks the server, or the proxy in front of it, whether it keeps a READ ONLY session from writing. Nothing waits for the answers
 * before the next statement is sent: all this takes one round trip, together with what follows.
 */
export async function askForSharing(session: Session, clock: Clock): Promise<Sharing> {
  if (!session.pipelines || !session.pipe) return { noLane: session.unpipelined ?? 'the driver does not pipeline' }
  const asked = clock.now()
  const first = isReadOnlyNow(session)
  const rest = Promise.all([READ_ONLY, PROBE, READ_WRITE].map((statement) => outcome(session, statement)))
  const isReadOnly = await first
  const roundTripMs = clock.now() - asked
  const [set, probe, back] = (await rest).map(errorIn)
  return { roundTripMs, isReadOnly, noLane: session.alive ? whyNot(set, probe, back) : 'the connection ended' }
}

/** Whether its transactions are READ ONLY as it stands. */
export async function isReadOnlyNow(session: Session): Promise<boolean> {
  const answer = await outcome(session, { sql: `SELECT @@session.${variableOf(session.server)} AS only` })
  return 'rows' in answer && Number(onlyValue(answer.rows[0])) === 1
}

function whyNot(set: Error | undefined, probe: Error | undefined, back: Error | undefined): string | undefined {
  if (set) return `the server refuses READ ONLY: ${set.message}`
  if (!isBounce(probe)) return 'the server, or a proxy in front of it, does not honour READ ONLY'
  return back && `the server refuses READ WRITE: ${back.message}`
}

/** MySQL has the longer name only, from 8.0.3 on; MariaDB the shorter, and both from 11.1 on. */
function variableOf({ flavour, version }: Server): string {
  return flavour === 'mariadb' || isBefore(version, '8.0.3') ? 'tx_read_only' : 'transaction_read_only'
}

/** For a session whose transactions were READ ONLY before it was asked. */
export async function makeReadOnlyAgain(session: Session): Promise<void> {
  await session.query(READ_ONLY)
}

/** True for the refusal of a write on a READ ONLY session. It had no effect. */
export function isBounce(error: unknown): boolean {
  return errnoOf(error) === READ_ONLY_TRANSACTION
}

/**
 * Sent ahead of the slot's next statement, in the same write. Should the server refuse to go back, a write bounces, without
 * effect; the session is closed when it comes home.
 */
export function makeReadOnly(slot: Slot, on: boolean): void {
  if (slot.readOnly === on || slot.isForReading) return
  slot.readOnly = on
  const ack: Answer = { resolve: () => {}, reject: () => (slot.retire ??= 'unclean') }
  slot.session?.pipe?.(on ? READ_ONLY : READ_WRITE, ack)
}

function outcome(session: Session, statement: Statement): Promise<Result | Error> {
  return new Promise((resolve) => session.pipe?.(statement, { resolve, reject: (fault) => resolve(fault as Error) }))
}

function errorIn(outcome: Result | Error): Error | undefined {
  return outcome instanceof Error ? outcome : undefined
}

function errnoOf(error: unknown): unknown {
  return ((error as { error?: unknown } | undefined)?.error as { errno?: unknown } | undefined)?.errno
}
