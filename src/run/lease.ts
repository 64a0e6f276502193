import { every } from '../clock.js'
import type { Result, Row, RowStream, Statement } from '../driver.js'
import { HoldfastError } from '../errors.js'
import { Fault, type Effect } from '../faults/fault.js'
import { endThread, layGhost } from '../pool/ghost.js'
import { noteLease, type LeaseNote, type Site } from '../pool/lease-note.js'
import type { Leaks } from '../pool/leaks.js'
import { aborted, type Lender } from '../pool/lender.js'
import type { Learned } from '../pool/limits.js'
import { checkCallOptions } from '../pool/options.js'
import type { Slot } from '../pool/slot.js'
import { RowReader, type StreamHome, type StreamOptions } from '../results/stream.js'
import { bringsSql } from '../sql/raw.js'
import { shapeOf, type Shape } from '../sql/shape.js'
import { bounded, givenUp, UNBOUNDED, type Bounds } from './bounds.js'
import { leaseAbandoned, leaseBusy, statementError, streamCut, turnTimeout } from './failure.js'
import { noticed, runStatement } from './statement.js'

export interface StatementOptions {
  /** After this the call rejects with QUERY_TIMEOUT, and the statement is ended on the server. */
  timeoutMs?: number
  /** When it aborts, the call rejects with ABORTED, and the statement is ended on the server. */
  signal?: AbortSignal
  /** Send it as a prepared statement. */
  prepare?: boolean
}

// While what is left of a result is thrown away: a peer that sends nothing for so long has gone silent.
const SILENT_AFTER_MS = 2_000
const STATEMENT_OPTIONS = ['timeoutMs', 'signal', 'prepare']

/** Looks after a transaction's statements. */
export interface Guard {
  /** Its statements leave nothing behind that the guard does not look after itself. */
  readonly own: boolean
  /** What giving one of them up does to the work. @default it is undone with the transaction, if one is open */
  readonly givenUp?: Effect
  /**
   * Told of a failure before the next in line gets its turn; `ask` runs a statement within that turn. What it gives is
   * for the reader of a stream.
   */
  met(error: unknown, ask: (sql: string) => Promise<Result>): Promise<unknown>
}

/** Where leases come from. */
export interface Counter {
  readonly lender: Lender
  readonly leaks: Leaks
}

/**
 * A session on loan. It is the holder's alone until `release()`; its statements run one after the other, in the order of
 * the calls. A second release does nothing, and use after release throws.
 */
export class Lease {
  readonly #lender: Lender
  readonly #leaks: Leaks
  readonly #slot: Slot
  readonly #note: LeaseNote
  #turns: Turn[] | undefined = undefined
  /** The stream that has the turn. */
  #reading: RowReader | undefined = undefined
  #dirty = false
  #released = false
  /** Why nothing can be run on it any more, though it was not released. */
  #over: HoldfastError | undefined = undefined

  /** @internal Use `pool.acquire()`. */
  constructor(counter: Counter, slot: Slot, site: Site | undefined) {
    this.#lender = counter.lender
    this.#leaks = counter.leaks
    this.#slot = slot
    this.#note = noteLease(slot, site)
    this.#leaks.watch(this, this.#note)
  }

  /** The server's number for this session, as CONNECTION_ID() and its process list show it. */
  get threadId(): number {
    return this.#slot.session?.threadId ?? 0
  }

  /**
   * Runs a statement.
   * @throws the driver's own error when the server refused the statement; else a HoldfastError: SESSION_LOST,
   * QUERY_TIMEOUT, ABORTED, PACKET_TOO_LARGE, LEASE_RELEASED, LEASE_ABANDONED
   */
  async query<R = Row>(sql: string, values?: unknown, options?: StatementOptions): Promise<Result<R>> {
    const inTransaction = this.#note.inTransaction && this.#shape(sql).transaction === 'none'
    try {
      return (await this.run({ sql, values, prepare: options?.prepare ?? false }, this.bounds(options))) as Result<R>
    } catch (error) {
      if (!(error instanceof Fault)) throw error
      // The server undoes an open transaction when its connection ends.
      throw statementError(error, error.effect === 'unknown' && inTransaction ? 'rolled-back' : error.effect)
    }
  }

  /**
   * Rows as they come: nothing is read faster than it is taken. Leaving the loop early ends the statement.
   * @throws STREAM_BROKEN when the connection is lost on the way
   */
  stream<R = Row>(sql: string, values?: unknown, options?: StreamOptions): AsyncIterableIterator<R> {
    return this.rows<R>({ sql, values }, options)
  }

  /** Gives the session back. What it left behind is cleaned up before anybody else gets it. */
  release(): void {
    if (this.#released) return
    this.#released = true
    if (!this.#note.busy) this.#goHome()
    else if (this.#reading && !this.#reading.free()) void this.#reading.cut(streamCut('the lease was released'))
  }

  [Symbol.dispose](): void {
    this.release()
  }
  async [Symbol.asyncDispose](): Promise<void> {
    this.release()
  }

  // ---- for transactions

  /** @internal As query(), but rejects with a Fault where the statement failed. */
  async run(statement: Statement, bounds: Bounds, guard?: Guard): Promise<Result> {
    if (this.#reading) await this.#interrupt(guard?.own ?? false)
    let left = bounds
    if (this.#note.busy) left = await this.#turn(bounds)
    else this.#begin()
    try {
      this.#check()
      if (bounds.signal?.aborted) throw aborted(bounds.signal)
      if (this.#note.ping) await this.#note.ping
      if (!guard?.own) this.#mark(statement)
      return await this.#send(statement, left, guard?.givenUp)
    } catch (error) {
      await guard?.met(error, (sql) => this.#send({ sql }, UNBOUNDED))
      throw error
    } finally {
      this.#end()
    }
  }

  /** @internal As stream(). */
  rows<R = Row>(statement: Statement, options: StreamOptions | undefined, guard?: Guard): AsyncIterableIterator<R> {
    const home: StreamHome = {
      begin: async () => {
        if (this.#reading) await this.#interrupt(false)
        if (this.#note.busy) await this.#turn(UNBOUNDED)
        else this.#begin()
        try {
          this.#check()
          if (this.#note.ping) await this.#note.ping
          this.#mark(statement)
        } catch (error) {
          this.#end()
          throw error
        }
        this.#reading = reader
        return this.#slot
      },
      end: async (slot, rows, over) => {
        if (rows && !rows.complete) await this.#stop(slot, rows, over)
        if (rows?.complete) slot.heardAt = this.#lender.clock.now()
        this.#reading = undefined
        this.#end()
      },
    }
    if (guard) home.failed = (error) => guard.met(error, (sql) => this.#send({ sql }, UNBOUNDED))
    const reader = new RowReader<R>(this.#lender, statement, options, home)
    return reader
  }

  /**
   * A statement behind a stream that is being read would wait for a reader who, as a rule, waits for the statement. The
   * end of a transaction, or of the lease, ends the stream.
   */
  async #interrupt(own: boolean): Promise<void> {
    const reading = this.#reading
    if (reading === undefined || reading.free()) return
    if (!own) throw leaseBusy()
    await reading.cut(streamCut('the transaction ended'))
  }

  /** The server is told to stop, through another session, while what it sends until then is thrown away. */
  async #stop(slot: Slot, rows: RowStream, over: () => Promise<void>): Promise<void> {
    let received = rows.received
    const watch = every(this.#lender.clock, SILENT_AFTER_MS, () => {
      if (rows.received === received) this.#drop(slot)
      received = rows.received
    })
    const stopped = new AbortController()
    const told = endThread(this.#lender, slot.learned?.identity, 'QUERY', stopped.signal).catch(() => undefined)
    await over()
    watch.cancel()
    stopped.abort()
    await told
  }

  /** The peer is silent, or the server busy with what nobody waits for: the session is no longer the lease's. */
  #drop(slot: Slot): void {
    if (slot.place !== 'leased') return
    this.end(new HoldfastError('SESSION_LOST', 'this lease ended with a stream that was left and could not be ended'))
    this.#lender.ghost(slot)
    slot.session?.destroy()
    void layGhost(this.#lender, slot)
  }

  /** @internal */
  set inTransaction(open: boolean) {
    this.#note.inTransaction = open
  }

  /** @internal Nothing can be run any more; the session goes home unclean. */
  end(error: HoldfastError): void {
    this.#over ??= error
    this.#dirty = true
  }

  /** @internal */
  get learned(): Learned | undefined {
    return this.#slot.learned
  }

  /** @internal True when the session has ended or was cut off. */
  get isLost(): boolean {
    return this.#slot.place !== 'leased' || !this.#slot.session?.alive
  }

  // ---- one statement

  async #send(
    statement: Statement,
    bounds: Bounds,
    effect: Effect = this.#note.inTransaction ? 'rolled-back' : 'unknown',
  ): Promise<Result> {
    try {
      const result = await runStatement(this.#lender, this.#slot, statement, bounds, effect)
      this.#slot.heardAt = this.#lender.clock.now()
      return result
    } catch (error) {
      if (this.#note.abandoned) throw leaseAbandoned(this.#lender.options.leakAfterMs, effect)
      // A COMMIT or ROLLBACK that failed may have left the transaction open.
      if (this.#shape(statement.sql).transaction !== 'none') this.#dirty = true
      if (!(error instanceof HoldfastError)) throw await noticed(this.#lender, this.#slot, error)
      this.end(
        new HoldfastError('SESSION_LOST', `this lease ended when a statement was given up: ${error.message}`, {
          cause: error,
        }),
      )
      throw error
    }
  }

  #shape(sql: string): Shape {
    return shapeOf(sql, this.#slot.session?.server.flavour)
  }

  /** Notes what the statement does to the session, before it is sent: afterwards there may be nobody left to note it. */
  #mark({ sql, values }: Statement): void {
    const { leavesState, transaction } = this.#shape(sql)
    this.#note.lastSql = sql
    const byHand = transaction === 'begins' || transaction === 'ends'
    if (byHand) this.#note.inTransaction = transaction === 'begins'
    else if (transaction === 'commits') this.#note.inTransaction = false
    // A transaction that is ended by hand as it was begun leaves nothing; one that is still open is seen at the release.
    if ((leavesState !== undefined && !byHand) || bringsSql(values)) this.#dirty = true
  }

  #check(): void {
    if (this.#note.abandoned) throw leaseAbandoned(this.#lender.options.leakAfterMs)
    if (this.#released)
      throw new HoldfastError('LEASE_RELEASED', 'this lease was released: its session is no longer yours')
    if (this.#over) throw this.#over
  }

  /** @internal */
  bounds(options: StatementOptions | undefined): Bounds {
    if (options) checkCallOptions(options, STATEMENT_OPTIONS, 'query')
    const timeoutMs = options?.timeoutMs ?? this.#lender.options.queryTimeoutMs
    return timeoutMs === Infinity && options?.signal === undefined ? UNBOUNDED : { timeoutMs, signal: options?.signal }
  }

  // ---- turns

  #begin(): void {
    this.#check()
    this.#note.busy = true
  }

  #end(): void {
    for (let next = this.#turns?.shift(); next; next = this.#turns?.shift()) if (next.take()) return
    this.#note.busy = false
    if (this.#released) this.#goHome()
  }

  /** Resolves, when it is this call's turn, with what is left of its time; rejects when that is up before. */
  async #turn(bounds: Bounds): Promise<Bounds> {
    this.#check()
    const { clock } = this.#lender
    const began = clock.now()
    let isGone = false
    const turn = new Promise<void>((resolve) => {
      const take = (): boolean => {
        if (!isGone) resolve()
        return !isGone
      }
      ;(this.#turns ??= []).push({ take })
    })
    await bounded(clock, turn, bounds, (why) => {
      isGone = true
      return why === 'late' ? turnTimeout(bounds.timeoutMs) : givenUp(why, bounds, 'none')
    })
    if (bounds.timeoutMs === Infinity) return bounds
    return { ...bounds, askedMs: bounds.timeoutMs, timeoutMs: bounds.timeoutMs - (clock.now() - began) }
  }

  get #isUnclean(): boolean {
    return this.#dirty || this.#note.inTransaction || this.#slot.learned?.autocommit === false
  }

  #goHome(): void {
    if (this.#note.abandoned) return
    this.#leaks.unwatch(this.#note)
    if (this.#slot.place !== 'leased') return
    if (this.#note.ping) void this.#note.ping.then(() => this.#lender.giveBack(this.#slot, 'dirty'))
    else this.#lender.giveBack(this.#slot, this.#isUnclean ? 'dirty' : 'clean')
  }
}

interface Turn {
  /** False when nobody takes the turn any more. */
  take(): boolean
}
