import type { Effect } from './faults/fault.js'

export type ErrorCode =
  | 'POOL_ACQUIRE_TIMEOUT'
  | 'POOL_QUEUE_FULL'
  | 'POOL_CLOSED'
  | 'CONNECT_FAILED'
  | 'CONNECT_TIMEOUT'
  | 'SESSION_LOST'
  | 'QUERY_TIMEOUT'
  | 'ABORTED'
  | 'LEASE_RELEASED'
  | 'LEASE_ABANDONED'
  | 'LEASE_BUSY'
  | 'TRANSACTION_LOST'
  | 'COMMIT_UNKNOWN'
  | 'STREAM_BROKEN'
  | 'PACKET_TOO_LARGE'
  | 'OPTION_INVALID'

/**
 * Every error that Holdfast itself throws. An error that the server gave to a statement (1062, 1064, ...) is not
 * wrapped: it stays the driver's own.
 */
export class HoldfastError extends Error {
  override readonly name = 'HoldfastError'
  readonly code: ErrorCode
  /** What the server may have done with the work. */
  readonly effect: Effect

  constructor(code: ErrorCode, message: string, options: { effect?: Effect; cause?: unknown } = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined)
    this.code = code
    this.effect = options.effect ?? 'none'
  }
}

/** For what is told to a crowd: the stack would be a timer's, which says nothing, and capturing it is most of the work. */
export function withoutStack<T>(make: () => T): T {
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = 0
  try {
    return make()
  } finally {
    Error.stackTraceLimit = limit
  }
}
