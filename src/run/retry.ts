import type { Result, Statement } from '../driver.js'
import { HoldfastError } from '../errors.js'
import type { Fault } from '../faults/fault.js'
import { announceRetry } from '../pool/announce.js'
import type { Lanes } from '../pool/lanes.js'
import { aborted, type Lender } from '../pool/lender.js'
import type { Slot } from '../pool/slot.js'
import { bringsSql } from '../sql/raw.js'
import { shapeOf } from '../sql/shape.js'
import { backoffMs, pause } from './backoff.js'
import { UNBOUNDED, type Bounds } from './bounds.js'
import { statementError } from './failure.js'
import type { StatementOptions } from './lease.js'
import { formForLane, PoolRead, type OnLease } from './read.js'
import { noticed, runStatement } from './statement.js'

export interface QueryOptions extends StatementOptions {
  /** It may be run again though it may have been executed already: the result is the same. @default false */
  idempotent?: boolean
  /** Whether it may share a session with other reads. @default true */
  lane?: boolean
}

export const QUERY_OPTIONS: readonly string[] = ['timeoutMs', 'signal', 'prepare', 'idempotent', 'lane']

// Each try is on a session that was looked at, or opened, after the failure: more than a few mean that something else is wrong.
const MOST_ATTEMPTS = 8
const NO_OPTIONS: QueryOptions = {}

const ON_LEASE: OnLease = {
  run: (lender, { statement, options, began }) => attempt(lender, undefined, statement, options, 1, began),
  again: (lender, { statement, options, began }, fault) => again(lender, statement, options, fault, 1, began),
}

/** One statement in autocommit: a read on a lane, anything else on whichever session is free; run again where that is safe. */
export function query(
  lender: Lender,
  lanes: Lanes,
  statement: Statement,
  options: QueryOptions | undefined,
): Promise<Result> {
  const form = formForLane(lender, lanes, statement, options)
  if (typeof form === 'string') {
    lanes.count.leased(form)
    return queryOnLease(lender, statement, options)
  }
  return new Promise((resolve, reject) => {
    const read = new PoolRead(lender, ON_LEASE, statement, form, options ?? NO_OPTIONS, resolve, reject)
    lanes.run(read, read.began)
  })
}

async function queryOnLease(lender: Lender, statement: Statement, options: QueryOptions | undefined): Promise<Result> {
  const slot = options === undefined ? lender.take() : undefined
  if (slot !== undefined && lender.options.queryTimeoutMs === Infinity) {
    try {
      return await runOnce(lender, slot, statement, UNBOUNDED)
    } catch (error) {
      return again(lender, statement, options ?? {}, error, 1, lender.clock.now())
    }
  }
  return attempt(lender, slot, statement, options ?? {}, 1, lender.clock.now())
}

async function attempt(
  lender: Lender,
  taken: Slot | undefined,
  statement: Statement,
  options: QueryOptions,
  number: number,
  began: number,
): Promise<Result> {
  const { signal } = options
  const timeoutMs = options.timeoutMs ?? lender.options.queryTimeoutMs
  const leftMs = (): number => timeoutMs - (lender.clock.now() - began)
  const slot =
    taken ?? lender.take() ?? (await lender.wait(Math.min(lender.options.acquireTimeoutMs, leftMs()), signal))
  try {
    return await runOnce(lender, slot, statement, { timeoutMs: leftMs(), askedMs: timeoutMs, signal })
  } catch (error) {
    return again(lender, statement, options, error, number, began)
  }
}

/** Runs it and gives the slot back. Rejects with a Fault, or with QUERY_TIMEOUT or ABORTED. */
async function runOnce(lender: Lender, slot: Slot, statement: Statement, bounds: Bounds): Promise<Result> {
  // It may have been aborted in the very turn in which the session came.
  if (bounds.signal?.aborted) {
    lender.giveBack(slot, 'clean')
    throw aborted(bounds.signal)
  }
  let result: Result
  try {
    result = await runStatement(lender, slot, statement, bounds, 'unknown')
  } catch (error) {
    if (error instanceof HoldfastError) throw error
    const fault = await noticed(lender, slot, error)
    lender.giveBack(slot, fault.session === 'lost' ? 'lost' : conditionAfter(slot, statement), true)
    throw fault
  }
  lender.giveBack(slot, conditionAfter(slot, statement), true)
  return result
}

export function conditionAfter({ session, learned }: Slot, { sql, values }: Statement): 'clean' | 'dirty' {
  const { leavesState } = shapeOf(sql, session?.server.flavour)
  return leavesState === undefined && learned?.autocommit !== false && !bringsSql(values) ? 'clean' : 'dirty'
}

async function again(
  lender: Lender,
  statement: Statement,
  options: QueryOptions,
  error: unknown,
  number: number,
  began: number,
): Promise<Result> {
  if (error instanceof HoldfastError) throw error
  const fault = error as Fault
  if (number >= MOST_ATTEMPTS || !isSafeToRepeat(fault, options)) throw statementError(fault)
  const inMs = fault.session === 'lost' ? 0 : backoffMs(number)
  const timeoutMs = options.timeoutMs ?? lender.options.queryTimeoutMs
  if (lender.clock.now() + inMs - began >= timeoutMs) throw statementError(fault)
  announceRetry(lender, 'statement', number + 1, fault, inMs)
  if (inMs > 0) await pause(lender.clock, inMs, options.signal)
  return attempt(lender, undefined, statement, options, number + 1, began)
}

/** What provably never reached the server, what the server undid, and what the caller declared idempotent. */
function isSafeToRepeat(fault: Fault, { idempotent = false }: QueryOptions): boolean {
  switch (fault.kind) {
    case 'packet-too-large':
    case 'client':
      return false
    case 'deadlock':
    case 'snapshot':
      // Of several statements in one text, or in a procedure, a part may have been committed before.
      return fault.effect === 'rolled-back'
    default:
      return fault.session === 'lost' && (fault.effect === 'none' || idempotent)
  }
}
