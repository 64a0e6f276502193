import { setImmediate as turnOfTheLoop } from 'node:timers/promises'
import type { Row, RowStream, Session, Statement } from '../driver.js'
import { HoldfastError } from '../errors.js'
import { aborted, type Lender } from '../pool/lender.js'
import { checkCallOptions } from '../pool/options.js'
import type { Slot } from '../pool/slot.js'
import { bounded, givenUp, type Bounds } from '../run/bounds.js'
import { statementError, streamBroken } from '../run/failure.js'
import { noticed } from '../run/statement.js'

export interface StreamOptions {
  /** How long to wait for the server at a time: for the first row, and for each further one. The reader's own time does not count. */
  timeoutMs?: number
  /** When it aborts, the loop rejects with ABORTED, and the statement is ended on the server. */
  signal?: AbortSignal
}

/** Where a stream has its session from, and what becomes of it. */
export interface StreamHome {
  begin(): Promise<Slot>
  /** Where it is noted how the reader gets on. */
  reading?: { rows: number; waits: boolean }
  /** Told of a failure before the end; gives what the reader is to be told of it. */
  failed?(error: unknown): Promise<unknown>
  /** The server has sent the whole result, or the stream was left before: `over` resolves when it has sent what was left. */
  end(slot: Slot, rows: RowStream | undefined, over: () => Promise<void>): Promise<void>
}

// What is left of a small result is here within a few turns of the event loop; anything more is not waited for.
const TURNS_FOR_THE_REST = 3

/** Rows as they come, from the first `next()` on. Calls of `next()` that do not wait for one another stand in line. */
export class RowReader<R = Row> implements AsyncIterableIterator<R> {
  readonly #lender: Lender
  readonly #statement: Statement
  readonly #bounds: Bounds
  readonly #home: StreamHome
  #slot: Slot | undefined = undefined
  #rows: RowStream | undefined = undefined
  /** What is waited for: it comes after all when the reader's time was up first. */
  #coming: Promise<unknown> | undefined = undefined
  #line: (() => void)[] | undefined = undefined
  #busy = false
  #count = 0
  /** Nothing more is given. */
  #done = false
  /** Why somebody else ended it: a result must not seem to be over before its end. */
  #cutBy: HoldfastError | undefined = undefined
  /** The session is no longer this stream's. */
  #freed = false

  constructor(lender: Lender, statement: Statement, options: StreamOptions | undefined, home: StreamHome) {
    if (options) checkCallOptions(options, ['timeoutMs', 'signal'], 'stream')
    this.#lender = lender
    this.#statement = statement
    const { timeoutMs = Infinity, signal } = options ?? {}
    this.#bounds = { timeoutMs, signal }
    this.#home = home
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  async next(): Promise<IteratorResult<R>> {
    if (this.#busy) await new Promise<void>((resolve) => (this.#line ??= []).push(resolve))
    this.#busy = true
    try {
      return await this.#advance()
    } finally {
      const next = this.#line?.shift()
      if (next) next()
      else this.#busy = false
    }
  }

  async return(): Promise<IteratorResult<R>> {
    this.#done = true
    await this.#finish()
    return { done: true, value: undefined }
  }

  /** Ends it before its end, for a reason that the reader gets. */
  async cut(reason: HoldfastError): Promise<void> {
    if (!this.#done) this.#cutBy = reason
    await this.return()
  }

  /** Lets go of the session when the server has sent everything, though the rows may not have been read yet. */
  free(): boolean {
    if (this.#rows?.complete) void this.#finish()
    return this.#freed
  }

  async #advance(): Promise<IteratorResult<R>> {
    if (this.#done) return this.#over()
    try {
      const { signal } = this.#bounds
      if (signal?.aborted) throw aborted(signal)
      const rows = this.#rows ?? (await this.#open())
      if (rows === undefined) return { done: true, value: undefined }
      const coming = rows.next()
      this.#coming = coming
      const { reading } = this.#home
      if (reading) reading.waits = true
      const step = await bounded(this.#lender.clock, coming, this.#bounds, this.#givenUp)
      if (reading) reading.waits = false
      if (!step.done) {
        this.#count++
        if (reading) reading.rows++
        if (rows.complete && !this.#freed) void this.#finish()
        return step as IteratorResult<R>
      }
    } catch (error) {
      // Who left does not ask how it ended.
      if (!this.#done) throw await this.#failed(error)
    }
    this.#done = true
    await this.#finish()
    return this.#over()
  }

  #over(): IteratorResult<R> {
    const reason = this.#cutBy
    this.#cutBy = undefined
    if (reason !== undefined) throw reason
    return { done: true, value: undefined }
  }

  readonly #givenUp = (why: 'late' | 'aborted'): HoldfastError => givenUp(why, this.#bounds, 'unknown')

  async #open(): Promise<RowStream | undefined> {
    const slot = await this.#home.begin()
    this.#slot = slot
    // It may have been aborted in the very turn in which the session came.
    if (this.#bounds.signal?.aborted) throw aborted(this.#bounds.signal)
    if (this.#done) await this.#finish()
    else this.#rows = (slot.session as Session).stream(this.#statement)
    return this.#rows
  }

  async #failed(error: unknown): Promise<unknown> {
    this.#done = true
    const slot = this.#slot
    if (slot === undefined) return error
    const fault = error instanceof HoldfastError ? undefined : await noticed(this.#lender, slot, error)
    const told = await this.#home.failed?.(fault ?? error)
    const finished = this.#finish()
    // Who gave up does not wait for the server.
    if (fault === undefined) return error
    await finished
    if (told !== undefined) return told
    return fault.session === 'lost' && fault.effect !== 'none'
      ? streamBroken(fault, this.#count)
      : statementError(fault)
  }

  async #finish(): Promise<void> {
    const slot = this.#slot
    if (this.#freed || slot?.session === undefined) return
    this.#freed = true
    const { session } = slot
    const rows = this.#rows
    // Not thrown away yet: back-pressure keeps what comes in these turns small.
    if (rows && !rows.complete && session.alive) {
      for (let turn = 0; turn < TURNS_FOR_THE_REST && !rows.complete; turn++) await turnOfTheLoop()
    }
    await this.#home.end(slot, rows, () => this.#rest(session))
  }

  /** Until the server has sent what was left, or the connection has ended. */
  async #rest(session: Session): Promise<void> {
    const rows = this.#rows
    rows?.discard()
    await this.#coming?.catch(() => undefined)
    for (let left = rows; left && !left.complete && session.alive; left = this.#rows) {
      const step = await left.next().catch(() => undefined)
      if (step === undefined || step.done) await turnOfTheLoop()
    }
  }
}
