import { setImmediate as turnOfTheLoop } from 'node:timers/promises'
import type { Row, RowStream, Session, Statement } from '../driver.js'
import { HoldfastError } from '../errors.js'
import { aborted, type Lender } from '../pool/lender.js'
import { checkCallOptions } from '../pool/options.js'
import type { Slot } from '../pool/slot.js'
import { queryTimeout, statementError, streamBroken } from '../run/failure.js'
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
  /** Told of a failure before the end, with what the reader is to be told of it. */
  failed?(error: unknown): Promise<unknown>
  /** The stream is at its end, or was left. `over` resolves when the server has sent what was left. */
  end(slot: Slot, rows: RowStream, over: () => Promise<void>): Promise<void>
}

// What is left of a small result is here within a few turns of the event loop; anything more is not waited for.
const TURNS_FOR_THE_REST = 3

/** Rows as they come, from the first `next()` on. */
export function streamFrom<R = Row>(
  lender: Lender,
  statement: Statement,
  options: StreamOptions | undefined,
  home: StreamHome,
): AsyncIterableIterator<R> {
  if (options) checkCallOptions(options, ['timeoutMs', 'signal'], 'stream')
  return new Rows<R>(lender, statement, options ?? {}, home)
}

class Rows<R> implements AsyncIterableIterator<R> {
  readonly #lender: Lender
  readonly #statement: Statement
  readonly #options: StreamOptions
  readonly #home: StreamHome
  #slot: Slot | undefined = undefined
  #rows: RowStream | undefined = undefined
  /** What is waited for: it comes after all when the reader's time was up first. */
  #step: Promise<unknown> | undefined = undefined
  #count = 0
  #done = false

  constructor(lender: Lender, statement: Statement, options: StreamOptions, home: StreamHome) {
    this.#lender = lender
    this.#statement = statement
    this.#options = options
    this.#home = home
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  async next(): Promise<IteratorResult<R>> {
    if (this.#done) return { done: true, value: undefined }
    try {
      const { signal, timeoutMs } = this.#options
      if (signal?.aborted) throw aborted(signal)
      this.#rows ??= await this.#open()
      const coming = this.#rows.next()
      this.#step = coming
      const step = signal || timeoutMs ? await this.#bounded(coming) : await coming
      if (!step.done) {
        this.#count++
        return step as IteratorResult<R>
      }
    } catch (error) {
      throw await this.#failed(error)
    }
    await this.#finish()
    return { done: true, value: undefined }
  }

  async return(): Promise<IteratorResult<R>> {
    await this.#finish()
    return { done: true, value: undefined }
  }

  async #open(): Promise<RowStream> {
    this.#slot = await this.#home.begin()
    return (this.#slot.session as Session).stream(this.#statement)
  }

  #bounded(coming: Promise<IteratorResult<Row, undefined>>): Promise<IteratorResult<Row, undefined>> {
    const { signal, timeoutMs } = this.#options
    return new Promise((resolve, reject) => {
      const onAbort = (): void => (settle(), reject(aborted(signal as AbortSignal, 'unknown')))
      const timer =
        timeoutMs === undefined
          ? undefined
          : this.#lender.clock.after(timeoutMs, () => (settle(), reject(queryTimeout(timeoutMs, 'unknown'))))
      const settle = (): void => {
        timer?.cancel()
        signal?.removeEventListener('abort', onAbort)
      }
      signal?.addEventListener('abort', onAbort, { once: true })
      coming.then(
        (step) => (settle(), resolve(step)),
        (error: unknown) => (settle(), reject(error as Error)),
      )
    })
  }

  async #failed(error: unknown): Promise<unknown> {
    const slot = this.#slot
    if (slot === undefined) {
      this.#done = true
      return error
    }
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
    if (this.#done) return
    this.#done = true
    const { session } = this.#slot ?? {}
    if (this.#slot === undefined || this.#rows === undefined || session === undefined) return
    const rows = this.#rows
    if (!rows.complete && session.alive) {
      rows.discard()
      for (let turn = 0; turn < TURNS_FOR_THE_REST && !rows.complete; turn++) await turnOfTheLoop()
    }
    await this.#home.end(this.#slot, rows, () => rest(rows, session, this.#step))
  }
}

/** Until the server has sent what was left. */
async function rest(rows: RowStream, session: Session, coming: Promise<unknown> | undefined): Promise<void> {
  await coming?.catch(() => undefined)
  while (!rows.complete && session.alive) {
    const step = await rows.next().catch(() => undefined)
    if (step === undefined || step.done) await turnOfTheLoop()
  }
}
