import type { Row, RowStream } from '../driver.js'
import type { Wire } from './wire.js'

/** So much may wait for its reader before nothing more is read from the server. A chunk of 64 kB or two still come then. */
const HELD_BYTES = 128 * 1024

interface Reader {
  readonly resolve: (result: IteratorResult<Row, undefined>) => void
  readonly reject: (error: unknown) => void
}

/**
 * Rows between a driver that pushes them and a reader that pulls. Not a Readable: its async iteration costs several times
 * more per row, and it cannot say when the server is done. One reader at a time.
 */
export class Rows implements RowStream {
  complete = false
  readonly #wire: Wire
  #queue: Row[] = []
  #next = 0
  /** Bytes received when the queue was last empty. */
  #mark: number
  #isHeldBack = false
  #isDiscarding = false
  #isOver = false
  #error: unknown
  #reader: Reader | undefined

  constructor(wire: Wire) {
    this.#wire = wire
    this.#mark = wire.received
  }

  get received(): number {
    return this.#wire.received
  }

  /** Rejects with a Fault, once; resolves as done after that, and when all rows were read. */
  next(): Promise<IteratorResult<Row, undefined>> {
    if (this.#next < this.#queue.length) {
      const value: Row = this.#queue[this.#next]
      this.#queue[this.#next++] = undefined
      if (this.#next === this.#queue.length) this.#drained()
      return Promise.resolve({ value, done: false })
    }
    if (this.#isOver) return this.#end()
    if (this.#reader)
      return Promise.reject(new Error('next() was called again before the row of the call before had come'))
    return new Promise((resolve, reject) => (this.#reader = { resolve, reject }))
  }

  /** After this, `next()` resolves as done (or rejects) when the server is done with the statement. */
  discard(): void {
    this.#isDiscarding = true
    this.#drained()
  }

  /** @internal */
  push(row: Row): void {
    if (this.#isDiscarding) return
    if (this.#reader) {
      const { resolve } = this.#reader
      this.#reader = undefined
      resolve({ value: row, done: false })
      return
    }
    this.#queue.push(row)
    if (!this.#isHeldBack && this.#wire.received - this.#mark > HELD_BYTES) {
      this.#isHeldBack = true
      this.#wire.holdBack()
    }
  }

  /** @internal The server is done with the statement, or the session is lost: `complete` tells which. */
  finish(complete: boolean, error?: unknown): void {
    this.complete = complete
    this.#isOver = true
    this.#error = error
    // Rows may wait here for long yet, but the session is another's from now on.
    this.#letFlow()
    if (!this.#reader) return
    const { resolve, reject } = this.#reader
    this.#reader = undefined
    this.#end().then(resolve, reject)
  }

  #drained(): void {
    this.#queue = []
    this.#next = 0
    this.#mark = this.#wire.received
    this.#letFlow()
  }

  #letFlow(): void {
    if (!this.#isHeldBack) return
    this.#isHeldBack = false
    this.#wire.letFlow()
  }

  #end(): Promise<IteratorResult<Row, undefined>> {
    const error = this.#error
    this.#error = undefined
    return error === undefined ? Promise.resolve({ value: undefined, done: true }) : Promise.reject(error)
  }
}
