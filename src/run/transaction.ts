import type { Result, Row } from '../driver.js'
import { HoldfastError } from '../errors.js'
import { Fault, toFault } from '../faults/fault.js'
import { captureSite, type Site } from '../pool/lease-note.js'
import { aborted } from '../pool/lender.js'
import { onlyValue } from '../pool/limits.js'
import { checkCallOptions, invalid } from '../pool/options.js'
import type { StreamOptions } from '../results/stream.js'
import { bringsSql } from '../sql/raw.js'
import { shapeOf } from '../sql/shape.js'
import { backoffMs, pause } from './backoff.js'
import { commitUnknown, queryTimeout, statementError, transactionLost } from './failure.js'
import { Lease, type Counter, type StatementOptions } from './lease.js'
import { announceRetry } from './retry.js'

export interface TransactionOptions {
  isolation?: (typeof ISOLATION)[number]
  readOnly?: boolean
  /** How often the block may be run again, after a deadlock or a loss before COMMIT. @default 5 */
  retries?: number
  /** For all of it, from the call to the end of COMMIT, retries included. @default none; retries end after acquireTimeoutMs */
  timeoutMs?: number
  signal?: AbortSignal
}

const ISOLATION = ['read uncommitted', 'read committed', 'repeatable read', 'serializable'] as const
const TRANSACTION_OPTIONS = ['isolation', 'readOnly', 'retries', 'timeoutMs', 'signal']
const DEFAULT_RETRIES = 5
const RECORD_CHANGED = 1020

/** What has become of a transaction; shared by it and those within it. */
interface Fate {
  /** What undid it: from then on no statement of it may reach the server, where it would be committed by itself. */
  lost: Fault | undefined
  /** Nothing in it can have been committed half-way: the whole block may be run again. */
  repeatable: boolean
  over: boolean
}

/** An open transaction. It is the block's alone, and over when the block is. */
export class Transaction {
  readonly #lease: Lease
  readonly #signal: AbortSignal | undefined
  readonly #fate: Fate
  readonly #depth: number

  /** @internal Use `pool.transaction()`. */
  constructor(lease: Lease, signal: AbortSignal | undefined, fate: Fate, depth = 0) {
    this.#lease = lease
    this.#signal = signal
    this.#fate = fate
    this.#depth = depth
  }

  /** The server's number for this session. */
  get threadId(): number {
    return this.#lease.threadId
  }

  /**
   * Runs a statement of this transaction.
   * @throws the driver's own error when the server refused the statement; TRANSACTION_LOST once the connection is gone,
   * or the server has undone the transaction: nothing more of it can take effect
   */
  async query<R = Row>(sql: string, values?: unknown, options?: StatementOptions): Promise<Result<R>> {
    this.#check(sql, values)
    return (await this.#run(sql, values, options, false)) as Result<R>
  }

  /** Rows as they come, inside the transaction. */
  stream<R = Row>(sql: string, values?: unknown, options?: StreamOptions): AsyncIterableIterator<R> {
    this.#check(sql, values)
    return this.#lease.stream<R>(sql, values, this.#withSignal(options))
  }

  /** A transaction within: when its block throws, what it did is undone (SAVEPOINT), and the outer one goes on. */
  async transaction<T>(block: (tx: Transaction) => Promise<T>): Promise<T> {
    this.#check()
    const name = `holdfast_${this.#depth + 1}`
    await this.#run(`SAVEPOINT ${name}`)
    let value: T
    try {
      value = await block(new Transaction(this.#lease, this.#signal, this.#fate, this.#depth + 1))
    } catch (error) {
      if (this.#fate.lost === undefined) await this.#run(`ROLLBACK TO SAVEPOINT ${name}`).catch(() => undefined)
      throw error
    }
    this.#check()
    await this.#run(`RELEASE SAVEPOINT ${name}`)
    return value
  }

  #check(sql?: string, values?: unknown): void {
    if (this.#fate.lost !== undefined) throw transactionLost(this.#fate.lost, this.#fate.repeatable)
    if (this.#fate.over) throw new HoldfastError('LEASE_RELEASED', 'this transaction is over: its block has ended')
    if (sql === undefined) return
    const flavour = this.#lease.learned?.limits.server.flavour
    if (shapeOf(sql, flavour).transaction !== 'none' || bringsSql(values)) this.#fate.repeatable = false
  }

  async #run(sql: string, values?: unknown, options?: StatementOptions, own = true): Promise<Result> {
    const prepare = options?.prepare ?? false
    try {
      return await this.#lease.run({ sql, values, prepare }, this.#withSignal(withoutPrepare(options)), own)
    } catch (error) {
      throw await this.#met(error)
    }
  }

  /** What the block is told of a failure, after noting what it did to the transaction. */
  async #met(error: unknown): Promise<unknown> {
    const fate = this.#fate
    if (error instanceof HoldfastError) {
      if (this.#lease.isLost) fate.lost ??= new Fault('lost', 'lost', 'rolled-back', error)
      return error
    }
    const fault = toFault(error)
    if (fault.session === 'lost') {
      fate.lost ??= fault
      return fault.kind === 'packet-too-large'
        ? statementError(fault, 'rolled-back')
        : transactionLost(fault, fate.repeatable)
    }
    if (fault.effect === 'rolled-back' || (await this.#undone(fault))) fate.lost ??= fault
    return fault.error
  }

  /** MariaDB's 1020 ends the transaction under innodb_snapshot_isolation, and may be on where it is off by default: ask. */
  async #undone(fault: Fault): Promise<boolean> {
    const { errno } = fault.error as { errno?: number }
    if (errno !== RECORD_CHANGED || this.#lease.learned?.limits.server.flavour !== 'mariadb') return false
    const open = await this.#lease.run({ sql: 'SELECT @@in_transaction' }, undefined, true).catch(() => undefined)
    return open === undefined || Number(onlyValue(open.rows[0])) === 0
  }

  #withSignal<O extends { signal?: AbortSignal }>(options: O | undefined): O | undefined {
    if (this.#signal === undefined) return options
    const signal = options?.signal ? AbortSignal.any([options.signal, this.#signal]) : this.#signal
    return { ...options, signal } as O
  }
}

function withoutPrepare(options: StatementOptions | undefined): StatementOptions | undefined {
  if (options?.prepare === undefined) return options
  const { prepare: _, ...rest } = options
  return rest
}

/** Runs the block in a transaction; the whole of it again when the server has undone it, or it was lost before COMMIT. */
export async function transact<T>(
  counter: Counter,
  block: (tx: Transaction) => Promise<T>,
  options: TransactionOptions = {},
): Promise<T> {
  checkTransactionOptions(options)
  const { lender } = counter
  const { retries = DEFAULT_RETRIES, timeoutMs = Infinity } = options
  const began = lender.clock.now()
  const site = captureSite(began)
  const deadline = new Deadline(counter, timeoutMs, options.signal)
  try {
    for (let attempt = 1; ; attempt++) {
      const outcome = await runOnce(counter, block, options, deadline, site)
      if ('value' in outcome) return outcome.value
      const { error, undoneBy } = outcome
      const inMs = backoffMs(attempt)
      const lateMs = Math.min(timeoutMs, Math.max(lender.options.acquireTimeoutMs, 0))
      const late = timeoutMs === Infinity && lender.clock.now() + inMs - began >= lateMs
      if (undoneBy === undefined || attempt > retries || late || deadline.signal?.aborted) throw error
      announceRetry(lender, 'transaction', attempt + 1, undoneBy, inMs)
      await pause(lender.clock, inMs, deadline.signal)
    }
  } catch (error) {
    throw deadline.reasonFor(error)
  } finally {
    deadline.over()
  }
}

type Outcome<T> = { readonly value: T } | { readonly error: unknown; readonly undoneBy: Fault | undefined }

async function runOnce<T>(
  counter: Counter,
  block: (tx: Transaction) => Promise<T>,
  options: TransactionOptions,
  deadline: Deadline,
  site: Site | undefined,
): Promise<Outcome<T>> {
  const { lender } = counter
  const { signal } = deadline
  const slot = lender.take() ?? (await lender.wait(Math.min(lender.options.acquireTimeoutMs, deadline.leftMs), signal))
  const lease = new Lease(counter, slot, site)
  const fate: Fate = { lost: undefined, repeatable: true, over: false }
  try {
    await begin(lease, options, signal)
    const value = await deadline.race(block(new Transaction(lease, signal, fate)))
    if (fate.lost !== undefined) return undone(fate.lost, fate, undefined)
    fate.over = true
    return await commit(lease, value, fate, options, signal)
  } catch (error) {
    if (error instanceof Fault)
      return { error: statementError(error), undoneBy: error.session === 'lost' ? error : undefined }
    if (fate.lost !== undefined) return undone(fate.lost, fate, error)
    // A failed ROLLBACK must not hide why it was needed; the session is reset at its release, or lost.
    await lease.run({ sql: 'ROLLBACK' }, { timeoutMs: ROLLBACK_WITHIN_MS }, true).then(
      () => (lease.inTransaction = false),
      () => lease.end(new HoldfastError('TRANSACTION_LOST', 'the transaction could not be rolled back')),
    )
    return { error, undoneBy: undefined }
  } finally {
    fate.over = true
    lease.release()
  }
}

// A rollback can take as long as the work took; past this the session is dropped, which rolls back as well.
const ROLLBACK_WITHIN_MS = 10_000

async function begin(
  lease: Lease,
  { isolation, readOnly }: TransactionOptions,
  signal: AbortSignal | undefined,
): Promise<void> {
  const bounds = signal && { signal }
  if (isolation) await lease.run({ sql: `SET TRANSACTION ISOLATION LEVEL ${isolation.toUpperCase()}` }, bounds, true)
  await lease.run({ sql: readOnly ? 'START TRANSACTION READ ONLY' : 'START TRANSACTION' }, bounds, true)
  lease.inTransaction = true
}

async function commit<T>(
  lease: Lease,
  value: T,
  fate: Fate,
  { readOnly }: TransactionOptions,
  signal: AbortSignal | undefined,
): Promise<Outcome<T>> {
  try {
    await lease.run({ sql: 'COMMIT' }, signal && { signal }, true)
    lease.inTransaction = false
    return { value }
  } catch (error) {
    // What is left of the transaction goes with the session's reset, or its end.
    lease.end(new HoldfastError('TRANSACTION_LOST', 'COMMIT failed'))
    if (error instanceof HoldfastError)
      return { error: error.effect === 'none' ? error : commitUnknown(error), undoneBy: undefined }
    const fault = toFault(error)
    if (fault.session === 'lost' && fault.effect === 'unknown' && !readOnly)
      return { error: commitUnknown(fault.error), undoneBy: undefined }
    // An answer that is no OK means that nothing was committed.
    const mayMend = fault.session === 'lost' || fault.effect === 'rolled-back'
    return mayMend
      ? undone(fault, fate, undefined)
      : { error: transactionLost(fault, fate.repeatable), undoneBy: undefined }
  }
}

/** The server undid it: what the caller gets if it is not run again. */
function undone(fault: Fault, fate: Fate, thrown: unknown): Outcome<never> {
  const cut = fault.error instanceof HoldfastError
  const error = thrown ?? (fault.session === 'usable' ? fault.error : transactionLost(fault, fate.repeatable))
  const repeatable = fate.repeatable && !cut && fault.kind !== 'packet-too-large'
  return { error, undoneBy: repeatable ? fault : undefined }
}

function checkTransactionOptions(options: TransactionOptions): void {
  checkCallOptions(options, TRANSACTION_OPTIONS, 'transaction')
  const { isolation, retries } = options
  if (isolation !== undefined && !ISOLATION.includes(isolation)) {
    throw invalid(`isolation must be one of ${ISOLATION.map((one) => `'${one}'`).join(', ')}`)
  }
  if (retries !== undefined && !(Number.isSafeInteger(retries) && retries >= 0)) {
    throw invalid('retries must be a whole number of at least 0')
  }
}

/** The time of a whole transaction: one signal that aborts when it is up, or when the caller's does. */
class Deadline {
  readonly signal: AbortSignal | undefined
  readonly #counter: Counter
  readonly #timeoutMs: number
  readonly #began: number
  readonly #expiry: AbortController | undefined
  readonly #timer: { cancel(): void } | undefined

  constructor(counter: Counter, timeoutMs: number, signal: AbortSignal | undefined) {
    this.#counter = counter
    this.#timeoutMs = timeoutMs
    this.#began = counter.lender.clock.now()
    if (timeoutMs !== Infinity) {
      const expiry = new AbortController()
      this.#expiry = expiry
      this.#timer = counter.lender.clock.after(timeoutMs, () => expiry.abort(), true)
    }
    this.signal =
      signal && this.#expiry ? AbortSignal.any([signal, this.#expiry.signal]) : (signal ?? this.#expiry?.signal)
  }

  get leftMs(): number {
    return this.#timeoutMs - (this.#counter.lender.clock.now() - this.#began)
  }

  /** Settles with the block, or when the time is up: a block that waits for something else than the server is not waited for. */
  race<T>(work: Promise<T>): Promise<T> {
    const { signal } = this
    if (signal === undefined) return work
    return new Promise((resolve, reject) => {
      const onAbort = (): void => reject(aborted(signal, 'rolled-back'))
      if (signal.aborted) onAbort()
      signal.addEventListener('abort', onAbort, { once: true })
      work.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort))
    })
  }

  /** Who set a time gets QUERY_TIMEOUT for it, not the abort that it is made of. */
  reasonFor(error: unknown): unknown {
    const expired = this.#expiry?.signal.aborted && error instanceof HoldfastError && error.code === 'ABORTED'
    return expired ? queryTimeout(this.#timeoutMs, error.effect === 'unknown' ? 'unknown' : 'rolled-back') : error
  }

  over(): void {
    this.#timer?.cancel()
  }
}
