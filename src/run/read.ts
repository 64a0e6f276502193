import type { Result, Statement } from '../driver.js'
import type { HoldfastError } from '../errors.js'
import type { Fault } from '../faults/fault.js'
import type { Form } from '../pool/form.js'
import type { Lanes } from '../pool/lanes.js'
import type { Lender } from '../pool/lender.js'
import { Read } from '../pool/read.js'
import type { Slot } from '../pool/slot.js'
import { bringsSql } from '../sql/raw.js'
import { shapeOf } from '../sql/shape.js'
import { readTimeout } from './failure.js'
import type { QueryOptions } from './retry.js'
import { noticed } from './statement.js'

/** What becomes of a read that does not end on a lane. */
export interface OnLease {
  /** Runs it on a session of its own. */
  run(lender: Lender, read: PoolRead): Promise<Result>
  /** It failed. */
  again(lender: Lender, read: PoolRead, fault: Fault): Promise<Result>
}

/** A read of `pool.query()`. */
export class PoolRead extends Read {
  readonly options: QueryOptions
  readonly began: number
  readonly #lender: Lender
  readonly #onLease: OnLease
  readonly #resolve: (result: Result) => void
  readonly #reject: (error: unknown) => void

  constructor(
    lender: Lender,
    onLease: OnLease,
    statement: Statement,
    form: Form,
    options: QueryOptions,
    resolve: (result: Result) => void,
    reject: (error: unknown) => void,
  ) {
    const began = lender.clock.now()
    super(statement, form, began, options.timeoutMs ?? lender.options.queryTimeoutMs, options.signal)
    this.options = options
    this.began = began
    this.#lender = lender
    this.#onLease = onLease
    this.#resolve = resolve
    this.#reject = reject
  }

  done(result: Result): void {
    this.#resolve(result)
  }

  failed(fault: Fault, slot: Slot): void {
    noticed(this.#lender, slot, fault)
      .then((seen) => this.#onLease.again(this.#lender, this, seen))
      .then(this.#resolve, this.#reject)
  }

  late(): void {
    this.#reject(readTimeout(this.timeoutMs))
  }

  refused(error: HoldfastError): void {
    this.#reject(error)
  }

  unshared(): void {
    this.#onLease.run(this.#lender, this).then(this.#resolve, this.#reject)
  }
}

// Others should not wait while it is sent, nor be lost when it is more than the server takes.
const LARGE_BYTES = 256 * 1024
const NUMBER_BYTES = 8

/** About what the values add to the statement: a list of lists of rows is as deep as it gets. */
function bytesOf(value: unknown, depth = 3): number {
  if (typeof value === 'string') return value.length
  if (typeof value !== 'object' || value === null) return NUMBER_BYTES
  if (depth === 0) return LARGE_BYTES
  if (ArrayBuffer.isView(value)) return 2 * value.byteLength
  let bytes = 0
  for (const each of Array.isArray(value) ? value : Object.values(value)) {
    bytes += bytesOf(each, depth - 1)
    if (bytes > LARGE_BYTES) break
  }
  return bytes
}

/** The form of a read that may share a session; else why it gets one of its own. */
export function formForLane(
  lender: Lender,
  lanes: Lanes,
  { sql, values }: Statement,
  options: QueryOptions | undefined,
): Form | string {
  const { lane, form: hash } = shapeOf(sql, lender.limits?.server.flavour)
  if (lane !== undefined) return lane
  if (options?.lane === false) return 'lane: false'
  if (lender.noLane !== undefined) return 'lanes are off'
  if (values !== undefined) {
    if (bringsSql(values)) return 'SQL among the values'
    if (bytesOf(values) > LARGE_BYTES) return 'large values'
  }
  const form = lanes.forms.of(hash, sql)
  return form.writes ? 'it writes (1792)' : form
}
