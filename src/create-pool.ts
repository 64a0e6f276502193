import type { Budget } from './budget.js'
import { systemClock, type Clock } from './clock.js'
import type { Driver, Result, Row, Statement } from './driver.js'
import { connectConfig } from './drivers/config.js'
import { findDriver } from './drivers/load.js'
import { Lanes } from './pool/lanes.js'
import { Leaks } from './pool/leaks.js'
import { captureSite } from './pool/lease-note.js'
import { aborted, Lender } from './pool/lender.js'
import type { Limits } from './pool/limits.js'
import { localBudget } from './pool/local-budget.js'
import { checkCallOptions, resolveOptions, type PoolOptions, type ResolvedOptions } from './pool/options.js'
import type { StreamOptions } from './results/stream.js'
import { poolStream } from './run/pool-stream.js'
import { Lease, type Counter } from './run/lease.js'
import { query, QUERY_OPTIONS, type QueryOptions } from './run/retry.js'
import { transact, type Transaction, type TransactionOptions } from './run/transaction.js'
import type { Stats } from './stats.js'

export interface AcquireOptions {
  /** For queue, dial and check together. @default the pool's acquireTimeoutMs */
  timeoutMs?: number
  signal?: AbortSignal
}

export interface DrainOptions {
  /** Leases that are not home by then are cut off. @default 10_000 */
  timeoutMs?: number
}

const ACQUIRE_OPTIONS = ['timeoutMs', 'signal']
const DRAIN_WITHIN_MS = 10_000

/**
 * A pool of sessions to one MySQL or MariaDB account.
 *
 * No session is opened before it is wanted, and an idle pool does not keep the process alive.
 */
export class Pool {
  readonly #counter: Counter
  readonly #lanes: Lanes
  #drained: Promise<void> | undefined = undefined

  /** @internal Use {@link createPool}. */
  constructor(options: ResolvedOptions, driver: Driver, budget: Budget, clock: Clock) {
    const lender = new Lender(options, driver, budget, clock)
    this.#counter = { lender, leaks: new Leaks(lender) }
    this.#lanes = new Lanes(lender)
  }

  /**
   * Runs one statement in autocommit on whichever session is free. It is run again when it provably had no effect, when
   * the server undid it (deadlock), or when it is `idempotent` and the connection was lost.
   * @throws the driver's own error when the server refused the statement; else a HoldfastError: POOL_ACQUIRE_TIMEOUT,
   * POOL_QUEUE_FULL, POOL_CLOSED, CONNECT_FAILED, SESSION_LOST, QUERY_TIMEOUT, ABORTED, PACKET_TOO_LARGE
   */
  query<R = Row>(sql: string, values?: unknown, options?: QueryOptions): Promise<Result<R>> {
    try {
      if (options) checkCallOptions(options, QUERY_OPTIONS, 'query')
      const statement: Statement = options?.prepare ? { sql, values, prepare: true } : { sql, values }
      return query(this.#counter.lender, this.#lanes, statement, options) as Promise<Result<R>>
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /** A session for the caller alone, until it is released: by `release()`, or `await using`. */
  async acquire(options: AcquireOptions = {}): Promise<Lease> {
    checkCallOptions(options, ACQUIRE_OPTIONS, 'acquire')
    const { lender } = this.#counter
    const { timeoutMs = lender.options.acquireTimeoutMs, signal } = options
    const site = captureSite(lender.clock.now())
    const slot = (signal?.aborted ? undefined : lender.take()) ?? (await lender.wait(timeoutMs, signal))
    if (signal?.aborted) {
      lender.giveBack(slot, 'clean')
      throw aborted(signal)
    }
    return new Lease(this.#counter, slot, site)
  }

  /** A session for the length of a block; released however the block ends. */
  async use<T>(block: (lease: Lease) => Promise<T>, options?: AcquireOptions): Promise<T> {
    const lease = await this.acquire(options)
    try {
      return await block(lease)
    } finally {
      lease.release()
    }
  }

  /**
   * Runs a block in a transaction: COMMIT when it returns, ROLLBACK when it throws. The whole block is run again after a
   * deadlock, or when the connection is lost before COMMIT: what it does elsewhere than in the database is done twice then.
   * @throws what the block threw; else TRANSACTION_LOST, COMMIT_UNKNOWN, QUERY_TIMEOUT, ABORTED, and what acquire() throws
   */
  async transaction<T>(block: (tx: Transaction) => Promise<T>, options?: TransactionOptions): Promise<T> {
    return transact(this.#counter, block, options)
  }

  /**
   * Rows as they come, on a session of their own until the loop ends. Leaving it early ends the statement.
   * @throws STREAM_BROKEN when the connection is lost on the way
   */
  stream<R = Row>(sql: string, values?: unknown, options?: StreamOptions): AsyncIterableIterator<R> {
    return poolStream<R>(this.#counter, { sql, values }, options)
  }

  /** The pool at this moment. */
  stats(): Stats {
    return this.#counter.lender.stats()
  }

  /** What the server told of its limits, by the newest session; undefined before the first. */
  limits(): Limits | undefined {
    return this.#counter.lender.limits
  }

  /**
   * Ends the pool: who waits is refused with POOL_CLOSED, leases may finish until the deadline, and every session is
   * closed. Resolves when the server has let go of all of them. A second call gets the same promise.
   */
  drain(options: DrainOptions = {}): Promise<void> {
    checkCallOptions(options, ['timeoutMs'], 'drain')
    return (this.#drained ??= this.#counter.lender.shut(options.timeoutMs ?? DRAIN_WITHIN_MS))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.drain()
  }
}

/**
 * Makes a pool. Nothing is opened yet; what is wrong with the options is told at once.
 * @throws HoldfastError OPTION_INVALID
 */
export function createPool(url: string, options?: PoolOptions): Pool
export function createPool(options: PoolOptions): Pool
export function createPool(first: string | PoolOptions, second?: PoolOptions): Pool {
  return buildPool(resolveOptions(first, second), systemClock)
}

/** @internal For tests, which bring their own clock. */
export function buildPool(options: ResolvedOptions, clock: Clock): Pool {
  const driver =
    typeof options.driver === 'object' ? options.driver : findDriver(options.driver)(connectConfig(options))
  return new Pool(options, driver, options.budget ?? localBudget(accountOf(options)), clock)
}

function accountOf({ host, port, socketPath, user = '' }: ResolvedOptions): string {
  return `${user}@${socketPath ?? `${host}:${port}`}`
}
