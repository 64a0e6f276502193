import type { Result, Statement } from '../driver.js'
import type { HoldfastError } from '../errors.js'
import type { Fault } from '../faults/fault.js'
import type { Form } from './form.js'
import type { Slot } from './slot.js'
import type { Line } from './waiter.js'

/**
 * A non-locking read that may share a session with others. It may run several times, also at once, since it changes
 * nothing; it ends once: one of its methods is called, once.
 */
export abstract class Read {
  before: Read | undefined = undefined
  behind: Read | undefined = undefined
  line: Line<Read> | undefined = undefined
  readonly statement: Statement
  readonly form: Form
  readonly signal: AbortSignal | undefined
  /** Infinity when it may take for ever. */
  readonly timeoutMs: number
  readonly dueAt: number
  /** By when it must have been sent; anew when it was lost on the way. Absolute, as the deadline. */
  sendBy = 0
  /** Of what is waited for at the moment: a session, or the answer. */
  deadline: number = Infinity
  isSettled = false
  /** Its caller waits no longer: what still runs of it is to be ended. */
  isGivenUp = false
  /** On how many lanes it is under way. */
  flights = 0
  /** How often a session was lost that it was on. */
  losses = 0
  /** It was running when a session was lost: nobody stands behind it any more. */
  isSuspect = false

  constructor(statement: Statement, form: Form, began: number, timeoutMs: number, signal: AbortSignal | undefined) {
    this.statement = statement
    this.form = form
    this.timeoutMs = timeoutMs
    this.dueAt = began + timeoutMs
    this.signal = signal
  }

  abstract done(result: Result): void
  /** The server, or the driver, refused it. */
  abstract failed(fault: Fault, slot: Slot): void
  /** Its time is up. */
  abstract late(): void
  /** It never ran, or is given up. */
  abstract refused(error: HoldfastError): void
  /** It needs a session of its own: it bounced off a READ ONLY one, or sessions cannot be shared. */
  abstract unshared(): void
}
