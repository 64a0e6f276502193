import { either, onAbort } from '../abort.js'
import type { Clock } from '../clock.js'
import type { Result, Row, Statement } from '../driver.js'
import { HoldfastError } from '../errors.js'
import { Fault, toFault } from '../faults/fault.js'
import { announceRetry } from '../pool/announce.js'
import { captureSite } from '../pool/lease-note.js'
import { onlyValue } from '../pool/limits.js'
import { checkCallOptions, invalid } from '../pool/options.js'
import type { StreamOptions } from '../results/stream.js'
import { bringsSql } from '../sql/raw.js'
import { shapeOf } from '../sql/shape.js'
import { backoffMs, pause } from './backoff.js'
import { commitUnknown, nestedBusy, statementError, transactionLost, transactionTimeout } from './failure.js'
import { Lease, type Counter, type Guard, type StatementOptions } from './lease.js'
import { bounded, givenUp, type Bounds } from './bounds.js'

export interface TransactionOptions {
  isolation?: (typeof ISOLATION)[number]
  readOnly?: boolean
  /** How often the block may be run again, after a deadlock or a loss before COMMIT. @default 5 */
  retries?: number
  /** For all of it, from the call to the end of COMMIT, retries included. @default none */
  timeoutMs?: number
  signal?: AbortSignal
}

const ISOLATION = ['read uncommitted', 'read committed', 'repeatable read', 'serializable'] as const
const TRANSACTION_OPTIONS = ['isolation', 'readOnly', 'retries', 'timeoutMs', 'signal']
const DEFAULT_RETRIES = 5
const RECORD_CHANGED = 1020
// A rollback can take as long as the work took; past this the session is dropped, which rolls back as well.
const ROLLBACK_WITHIN_MS = 10_000

/**
 * What has become of a transaction; shared by it and those within it. Once the server has undone it, no statement of it may
 * reach the server, which would commit it by itself: not even one that stands in line already.
 */
class Fate {
  /** What undid it. */
  lost: Fault | undefined = undefined
  /** Nothing in it can have been committed half-way: the whole block may be run again. */
  repeatable = true
  readonly #lease: Lease
  /** For the block's statements, and for those around them. */
  readonly theirs: Guard
  readonly ours: Guard

  constructor(lease: Lease) {
    this.#lease = lease
    const met: Guard['met'] = async (error, ask) => {
      await this.#met(error, ask)
      return this.told(error)
    }
    this.theirs = { own: false, met }
    this.ours = { own: true, met }
  }

  /** Nothing of it is left that could be gone on with. */
  lose(fault: Fault): void {
    this.lost ??= fault
    this.#lease.end(transactionLost(this.lost, this.repeatable))
  }

  /** What the block gets for a failure. */
  told(error: unknown): unknown {
    if (!(error instanceof Fault)) return error
    if (error.kind === 'packet-too-large') return statementError(error, 'rolled-back')
    return error.session === 'lost' ? transactionLost(error, this.repeatable) : error.error
  }

  async #met(error: unknown, ask: (sql: string) => Promise<Result>): Promise<void> {
    if (error instanceof Fault) {
      if (error.session === 'lost' || isUndoing(error) || (await this.#isUndone(error, ask))) this.lose(error)
    } else if (this.#lease.isLost) this.lose(new Fault('lost', 'lost', 'rolled-back', error))
  }

  /** MariaDB's 1020 ends the transaction under innodb_snapshot_isolation, which may be on where it is off by default. */
  async #isUndone({ error }: Fault, ask: (sql: string) => Promise<Result>): Promise<boolean> {
    const { errno } = error as { errno?: number }
    if (errno !== RECORD_CHANGED || this.#lease.learned?.limits.server.flavour !== 'mariadb') return false
    const open = await ask('SELECT @@in_transaction + 0').catch(() => undefined)
    return open === undefined || Number(onlyValue(open.rows[0])) === 0
  }
}

/** The server has undone the transaction, whatever a procedure in it may have committed before. */
function isUndoing({ kind, effect }: Fault): boolean {
  return effect === 'rolled-back' || kind === 'deadlock' || kind === 'snapshot'
}

/** An open transaction. It is the block's alone, and over when the block is. */
export class Transaction {
  readonly #lease: Lease
  readonly #fate: Fate
  readonly #signal: AbortSignal | undefined
  readonly #depth: number
  #over = false
  /** A transaction within is open. */
  #isNesting = false

  /** @internal Use `pool.transaction()`. */
  constructor(lease: Lease, fate: Fate, signal: AbortSignal | undefined, depth = 0) {
    this.#lease = lease
    this.#fate = fate
    this.#signal = signal
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
    this.#check({ sql, values })
    const statement = { sql, values, prepare: options?.prepare ?? false }
    const bounds = this.#lease.bounds(options)
    const both = bounds.signal && this.#signal && either(bounds.signal, this.#signal)
    const signal = both?.signal ?? bounds.signal ?? this.#signal
    try {
      return (await this.#run(statement, signal ? { ...bounds, signal } : bounds, this.#fate.theirs)) as Result<R>
    } finally {
      both?.release()
    }
  }

  /** Rows as they come, inside the transaction. */
  stream<R = Row>(sql: string, values?: unknown, options?: StreamOptions): AsyncIterableIterator<R> {
    this.#check({ sql, values })
    return this.#lease.rows<R>({ sql, values }, this.#withSignal(options), this.#fate.theirs)
  }

  /**
   * A transaction within: when its block throws, what it did is undone (SAVEPOINT), and the outer one goes on. What the
   * outer one does meanwhile is undone with it. One at a time.
   */
  async transaction<T>(block: (tx: Transaction) => Promise<T>): Promise<T> {
    this.#check()
    if (this.#isNesting) throw nestedBusy()
    this.#isNesting = true
    try {
      return await this.#nest(block)
    } finally {
      this.#isNesting = false
    }
  }

  async #nest<T>(block: (tx: Transaction) => Promise<T>): Promise<T> {
    const name = `holdfast_${this.#depth + 1}`
    await this.#control(`SAVEPOINT ${name}`)
    const inner = new Transaction(this.#lease, this.#fate, this.#signal, this.#depth + 1)
    try {
      const value = await block(inner)
      inner.#over = true
      await this.#control(`RELEASE SAVEPOINT ${name}`)
      return value
    } catch (error) {
      inner.#over = true
      if (this.#fate.lost === undefined) await this.#undoTo(name)
      throw error
    }
  }

  /** @internal */
  close(): void {
    this.#over = true
  }

  /** What cannot be undone must not be committed: a statement within has ended the outer transaction, too. */
  async #undoTo(name: string): Promise<void> {
    await this.#control(`ROLLBACK TO SAVEPOINT ${name}`).catch((error: unknown) => {
      if (this.#fate.lost !== undefined) return
      this.#fate.repeatable = false
      this.#fate.lose(new Fault('statement', 'usable', 'unknown', error))
    })
  }

  #control(sql: string): Promise<Result> {
    return this.#run({ sql }, { timeoutMs: Infinity, signal: this.#signal }, this.#fate.ours)
  }

  async #run(statement: Statement, bounds: Bounds, guard: Guard): Promise<Result> {
    try {
      return await this.#lease.run(statement, bounds, guard)
    } catch (error) {
      throw this.#fate.told(error)
    }
  }

  #check(statement?: Statement): void {
    if (this.#fate.lost !== undefined) throw transactionLost(this.#fate.lost, this.#fate.repeatable)
    if (this.#over) throw new HoldfastError('LEASE_RELEASED', 'this transaction is over: its block has ended')
    if (statement === undefined) return
    const { transaction } = shapeOf(statement.sql, this.#lease.learned?.limits.server.flavour)
    if (transaction !== 'none' || bringsSql(statement.values)) this.#fate.repeatable = false
  }

  #withSignal(options: StreamOptions | undefined): StreamOptions | undefined {
    if (this.#signal === undefined) return options
    return { ...options, signal: options?.signal ? AbortSignal.any([options.signal, this.#signal]) : this.#signal }
  }
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
  const site = captureSite(lender.clock.now())
  const deadline = new Deadline(lender.clock, timeoutMs, options.signal)
  try {
    for (let attempt = 1; ; attempt++) {
      const waitMs = Math.min(lender.options.acquireTimeoutMs, deadline.leftMs)
      // The caller's own signal: whose time is up in line gets the reason why there was no session.
      const slot = (options.signal?.aborted ? undefined : lender.take()) ?? (await lender.wait(waitMs, options.signal))
      const lease = new Lease(counter, slot, site)
      const outcome = await runOnce(lease, block, options, deadline)
      if ('value' in outcome) return outcome.value
      const { error, undoneBy } = outcome
      const inMs = backoffMs(attempt)
      const isLate = inMs >= deadline.leftMs || deadline.signal?.aborted
      if (undoneBy === undefined || attempt > retries || isLate) throw error
      announceRetry(lender, 'transaction', attempt + 1, undoneBy, inMs)
      await pause(lender.clock, inMs, deadline.signal)
    }
  } catch (error) {
    throw deadline.reasonFor(error)
  } finally {
    deadline.over()
  }
}

/** What became of one run; `undoneBy` is set when it may be run again. */
type Outcome<T> = { readonly value: T } | { readonly error: unknown; readonly undoneBy?: Fault | undefined }

async function runOnce<T>(
  lease: Lease,
  block: (tx: Transaction) => Promise<T>,
  options: TransactionOptions,
  deadline: Deadline,
): Promise<Outcome<T>> {
  const fate = new Fate(lease)
  const tx = new Transaction(lease, fate, deadline.signal)
  try {
    await begin(lease, options, deadline.signal)
    const value = await deadline.race(block(tx))
    tx.close()
    return fate.lost === undefined ? await commit(lease, value, fate, options, deadline.signal) : undone(fate)
  } catch (error) {
    // Before anything else: another flow of the block may go on, and must find the transaction over.
    tx.close()
    if (error instanceof Fault)
      return { error: statementError(error), undoneBy: error.session === 'lost' ? error : undefined }
    if (fate.lost !== undefined) return undone(fate, error)
    const rolledBack = rollBack(lease)
    // Whose time is up does not wait for the server; the session goes home when it is through.
    if (!deadline.signal?.aborted) await rolledBack
    return { error }
  } finally {
    lease.release()
  }
}

async function begin(
  lease: Lease,
  { isolation, readOnly }: TransactionOptions,
  signal: AbortSignal | undefined,
): Promise<void> {
  const bounds = { timeoutMs: Infinity, signal }
  if (isolation)
    await lease.run({ sql: `SET TRANSACTION ISOLATION LEVEL ${isolation.toUpperCase()}` }, bounds, BEGINNING)
  await lease.run({ sql: readOnly ? 'START TRANSACTION READ ONLY' : 'START TRANSACTION' }, bounds, BEGINNING)
  lease.inTransaction = true
}

/** Nobody stands in line behind it whom its failure would concern. */
const met = async (): Promise<undefined> => undefined
const BEGINNING: Guard = { own: true, givenUp: 'none', met }
const ENDING: Guard = { own: true, givenUp: 'unknown', met }

/** A failed ROLLBACK must not hide why it was needed: the session is dropped then, which rolls back as well. */
async function rollBack(lease: Lease): Promise<void> {
  try {
    await lease.run({ sql: 'ROLLBACK' }, { timeoutMs: ROLLBACK_WITHIN_MS, signal: undefined }, ENDING)
    lease.inTransaction = false
  } catch (error) {
    lease.end(new HoldfastError('TRANSACTION_LOST', 'the transaction could not be rolled back', { cause: error }))
  }
}

async function commit<T>(
  lease: Lease,
  value: T,
  fate: Fate,
  { readOnly }: TransactionOptions,
  signal: AbortSignal | undefined,
): Promise<Outcome<T>> {
  try {
    await lease.run({ sql: 'COMMIT' }, { timeoutMs: Infinity, signal }, ENDING)
    lease.inTransaction = false
    return { value }
  } catch (error) {
    // A statement of the block that nobody waited for was undone while COMMIT stood in line behind it.
    if (fate.lost !== undefined) return undone(fate)
    // What is left of the transaction goes with the session's reset, or its end.
    lease.end(new HoldfastError('TRANSACTION_LOST', 'COMMIT failed', { cause: error }))
    if (error instanceof HoldfastError) return { error: error.effect === 'none' ? error : commitUnknown(error) }
    const fault = toFault(error)
    // Nothing was written: whether it was committed makes no difference.
    if (fault.session === 'lost' && fault.effect === 'unknown' && !readOnly)
      return { error: commitUnknown(fault.error) }
    fate.lost = fault
    // An answer that is no OK means that nothing was committed.
    const mayMend = fault.session === 'lost' || fault.effect === 'rolled-back'
    return mayMend ? undone(fate) : { error: transactionLost(fault, fate.repeatable) }
  }
}

/** The server undid it: what the caller gets if it is not run again. */
function undone({ lost, repeatable }: Fate, thrown?: unknown): Outcome<never> {
  const fault = lost as Fault
  // Whose time was up, or who gave up, does not want it again; and too large a statement would be too large again.
  const again = repeatable && !(fault.error instanceof HoldfastError) && fault.kind !== 'packet-too-large'
  const error = thrown ?? (fault.session === 'usable' ? fault.error : transactionLost(fault, repeatable))
  return { error, undoneBy: again ? fault : undefined }
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
  readonly #clock: Clock
  readonly #timeoutMs: number
  readonly #began: number
  readonly #releases: (() => void)[] = []
  #isExpired = false

  constructor(clock: Clock, timeoutMs: number, signal: AbortSignal | undefined) {
    this.#clock = clock
    this.#timeoutMs = timeoutMs
    this.#began = clock.now()
    this.signal = signal
    if (timeoutMs === Infinity) return
    const controller = new AbortController()
    this.signal = controller.signal
    const expire = (): void => {
      this.#isExpired = true
      controller.abort()
    }
    const timer = clock.after(timeoutMs, expire, true)
    this.#releases.push(() => timer.cancel())
    if (signal && !signal.aborted) this.#releases.push(onAbort(signal, () => controller.abort(signal.reason)))
  }

  get leftMs(): number {
    return this.#timeoutMs - (this.#clock.now() - this.#began)
  }

  /** Settles with the block, or when the time is up: a block that waits for something else than the server is not waited for. */
  race<T>(work: Promise<T>): Promise<T> {
    const bounds = { timeoutMs: Infinity, signal: this.signal }
    return bounded(this.#clock, work, bounds, (why) => givenUp(why, bounds, 'rolled-back'))
  }

  /** Who set a time gets QUERY_TIMEOUT for it, not the abort that it is made of. */
  reasonFor(error: unknown): unknown {
    if (!this.#isExpired || !(error instanceof HoldfastError)) return error
    const { code, effect } = error
    if (code === 'ABORTED') return transactionTimeout(this.#timeoutMs, effect)
    const underCommit = code === 'COMMIT_UNKNOWN' && (error.cause as Partial<HoldfastError>).code === 'ABORTED'
    return underCommit ? commitUnknown(transactionTimeout(this.#timeoutMs, effect)) : error
  }

  over(): void {
    for (const release of this.#releases) release()
  }
}
