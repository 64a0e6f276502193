import { HoldfastError } from '../errors.js'
import type { Effect, Fault } from '../faults/fault.js'

/** Every sentence about work that failed on a session is built here. */

const WHAT_HAPPENED: Record<Effect, string> = {
  none: 'it was not executed',
  'rolled-back': 'the server undid it',
  unknown: 'whether it was executed is unknown',
}

/**
 * What the caller gets for a failed statement: the driver's own error when the server answered it, else one of ours with
 * the driver's as its cause.
 */
export function statementError(fault: Fault, effect: Effect = fault.effect): unknown {
  if (fault.kind === 'packet-too-large') {
    return new HoldfastError(
      'PACKET_TOO_LARGE',
      `the statement is larger than the server's max_allowed_packet, so the server closed the connection; it was not executed: send it in smaller parts, or have the limit raised`,
      { effect: effect === 'unknown' ? 'none' : effect, cause: fault.error },
    )
  }
  if (fault.session === 'usable') return fault.error
  return new HoldfastError('SESSION_LOST', `${howItEnded(fault)}; ${WHAT_HAPPENED[effect]}: ${fault.message}`, {
    effect,
    cause: fault.error,
  })
}

function howItEnded(fault: Fault): string {
  switch (fault.kind) {
    case 'idle-closed':
      return 'the server had closed the connection after wait_timeout'
    case 'shutdown':
      return 'the server is shutting down'
    default:
      return fault.effect === 'none'
        ? 'the connection had ended before the statement was sent'
        : 'the connection ended while the statement was under way'
  }
}

export function queryTimeout(timeoutMs: number, effect: Effect): HoldfastError {
  return new HoldfastError(
    'QUERY_TIMEOUT',
    `the statement took longer than ${Math.round(timeoutMs)} ms and is being ended on the server; ${WHAT_HAPPENED[effect]}`,
    { effect },
  )
}

/** For one that may have shared a session: it changes nothing, wherever it was when its time was up. */
export function readTimeout(timeoutMs: number): HoldfastError {
  return new HoldfastError(
    'QUERY_TIMEOUT',
    `the read took longer than ${Math.round(timeoutMs)} ms; if it still runs, it is being ended on the server`,
  )
}

/** For one that waited for its turn on a lease. */
export function turnTimeout(timeoutMs: number): HoldfastError {
  return new HoldfastError(
    'QUERY_TIMEOUT',
    `the statement was not begun within ${Math.round(timeoutMs)} ms: the one before it on this lease was still running`,
  )
}

export function leaseAbandoned(leakAfterMs: number, effect: Effect = 'none'): HoldfastError {
  return new HoldfastError(
    'LEASE_ABANDONED',
    `this lease was taken back: it was held for longer than leakAfterMs (${leakAfterMs} ms)`,
    { effect },
  )
}

export function streamCut(why: string): HoldfastError {
  return new HoldfastError('LEASE_RELEASED', `${why} while rows of this stream were still to come`)
}

export function nestedBusy(): HoldfastError {
  return new HoldfastError(
    'LEASE_BUSY',
    'a transaction within this one is open, and the two would undo each other: wait for it, or nest inside of it',
  )
}

export function leaseBusy(): HoldfastError {
  return new HoldfastError(
    'LEASE_BUSY',
    'the rows of a stream are being read on this lease: read them to the end, leave the loop, or take another session for this statement',
  )
}

export function transactionTimeout(timeoutMs: number, effect: Effect): HoldfastError {
  return new HoldfastError(
    'QUERY_TIMEOUT',
    `the transaction took longer than ${Math.round(timeoutMs)} ms; ${WHAT_HAPPENED[effect]}`,
    { effect },
  )
}

export function streamBroken(fault: Fault, rows: number): HoldfastError {
  return new HoldfastError('STREAM_BROKEN', `the connection ended after ${rows} rows of the result: ${fault.message}`, {
    effect: fault.effect,
    cause: fault.error,
  })
}

export function transactionLost(fault: Fault, certain: boolean): HoldfastError {
  const what = fault.session === 'lost' ? 'the connection ended before COMMIT' : 'the server undid the transaction'
  const then = certain
    ? 'nothing of it took effect'
    : 'a statement in it (DDL, CALL, COMMIT ...) may have committed what came before, so it was not run again'
  return new HoldfastError('TRANSACTION_LOST', `${what}; ${then}: ${fault.message}`, {
    effect: certain ? 'rolled-back' : 'unknown',
    cause: fault.error,
  })
}

export function commitUnknown(cause: unknown): HoldfastError {
  return new HoldfastError(
    'COMMIT_UNKNOWN',
    `COMMIT was sent but its reply was lost: the transaction is either committed as a whole or not at all, and only the data can tell (${cause instanceof Error ? cause.message : String(cause)})`,
    { effect: 'unknown', cause },
  )
}
