import type { Clock } from '../clock.js'
import type { Answer, Flavour, Result, RowStream, Server, ServerTraits, Session, Statement } from '../driver.js'
import { classify, type Evidence } from '../faults/classify.js'
import { Fault } from '../faults/fault.js'
import { Line } from '../pool/waiter.js'
import { shapeOf } from '../sql/shape.js'
import { Rows } from './rows.js'
import type { Wire } from './wire.js'

/** How a driver reports: an error, or what it got. */
export type Done = (error?: unknown, rows?: unknown, fields?: unknown) => void

/** What the statement that runs now leads to. */
interface Outcome {
  readonly sql: string | undefined
  readonly reject: (fault: Fault) => void
  readonly resolve: (rows: unknown, fields: unknown) => void
}

/** A statement that is sent behind others. */
class Piped {
  readonly statement: Statement
  readonly answer: Answer
  readonly done: Done
  /** What the wire had asked of the server before this was sent, and after; none while not all of it is sent. */
  asksBefore: number = Infinity
  asksAfter: number | undefined = undefined
  before: Piped | undefined = undefined
  behind: Piped | undefined = undefined
  line: Line<Piped> | undefined = undefined

  constructor(statement: Statement, answer: Answer, done: Done) {
    this.statement = statement
    this.answer = answer
    this.done = done
  }
}

/**
 * A session over a driver's connection. It knows nothing of the driver but four verbs, and trusts it with nothing but the
 * protocol: whether a statement was sent, whether the connection lives and when it is gone are read off the wire. However
 * often the driver calls back, and also if it never does, a statement settles once.
 */
export abstract class DriverSession implements Session {
  readonly threadId: number
  readonly server: Server
  readonly ended: Promise<Error | undefined>
  readonly unpipelined?: string
  traits?: ServerTraits
  protected readonly wire: Wire
  readonly #clock: Clock
  #outcome: Outcome | undefined
  /**
   * In the order in which they are sent. No Set: when it makes room its old table, which may long be among what is rarely
   * collected, points to the new one, and so keeps alive what came through for seconds.
   */
  readonly #piped = new Line<Piped>()
  /** Of this one a part can only be sent when the server has answered what was sent: what comes after it waits in line. */
  #blocker: Piped | undefined
  #line: (() => void)[] = []
  /** What `#outcome` is of waits there, too. */
  #isHeld = false
  #isLeaving = false
  #closing: Promise<void> | undefined
  #tellEnded!: (reason: Error | undefined) => void

  constructor(wire: Wire, threadId: number, server: Server, clock: Clock, unpipelined: string | undefined) {
    this.wire = wire
    this.threadId = threadId
    this.server = server
    this.#clock = clock
    if (unpipelined !== undefined) this.unpipelined = unpipelined
    this.ended = new Promise((resolve) => (this.#tellEnded = resolve))
    wire.rest()
    if (wire.isClosed) this.#wireClosed()
    else wire.onClosed = () => this.#wireClosed()
  }

  get alive(): boolean {
    return this.wire.alive && !this.#isLeaving
  }

  get pipelines(): boolean {
    return this.unpipelined === undefined
  }

  get received(): number {
    return this.wire.received
  }

  query(statement: Statement): Promise<Result> {
    return new Promise((resolve, reject) => {
      const outcome: Outcome = {
        sql: statement.sql,
        reject,
        resolve: (rows, fields) => resolve(this.result(rows, fields)),
      }
      this.#begin(outcome, () => this.send(statement, this.#done))
    })
  }

  stream(statement: Statement): RowStream {
    const rows = new Rows(this.wire)
    const outcome: Outcome = {
      sql: statement.sql,
      reject: (fault) => rows.finish(fault.session === 'usable', fault),
      resolve: () => rows.finish(true),
    }
    this.#begin(outcome, () => this.flow(statement, rows, this.#done))
    return rows
  }

  /** Statements are sent in the order in which they are given; not behind one of another kind. */
  pipe(statement: Statement, answer: Answer): void {
    const fault = this.#obstacle() ?? (this.pipelines ? undefined : noPipeline())
    if (fault) {
      answer.reject(fault)
      return
    }
    // Drivers keep their callbacks for a while; one that kept its statement would keep all that came after it, too.
    let own: Piped | undefined
    const done: Done = (error, rows, fields) => {
      const piped = own
      own = undefined
      if (piped) this.#answered(piped, error, rows, fields)
    }
    const piped = (own = new Piped(statement, answer, done))
    if (this.#piped.length === 0) this.wire.pipeline()
    this.#piped.join(piped)
    if (this.#isFree) this.#send(piped)
    else this.#sendLater(piped)
  }

  ping(): Promise<void> {
    return this.#command((done) => this.sendPing(done))
  }

  reset(): Promise<void> {
    return this.#command((done) => this.sendReset(done))
  }

  close(withinMs: number): Promise<void> {
    this.#closing ??= new Promise((resolve) => {
      const timer = this.#clock.after(withinMs, () => this.destroy(), true)
      void this.ended.then(() => {
        timer.cancel()
        resolve()
      })
      if (!this.wire.alive) return
      this.#isLeaving = true
      this.wire.hold(true)
      this.wire.sayGoodbye()
    })
    return this.#closing
  }

  destroy(): void {
    this.#isLeaving = true
    this.wire.sever()
  }

  hold(on: boolean): void {
    this.wire.hold(on)
  }

  /**
   * Sends a statement and collects the whole result. May throw for arguments that it does not take. False when it is not all
   * sent: `caughtUp` is called, with the same `done`, once it is.
   */
  protected abstract send(statement: Statement, done: Done): boolean
  /** Sends a statement and pushes its rows; `done` when the server is done. */
  protected abstract flow(statement: Statement, rows: Rows, done: Done): void
  protected abstract sendPing(done: Done): void
  protected abstract sendReset(done: Done): void
  /** What the driver gave to `done`, in our words. */
  protected abstract result(rows: unknown, fields: unknown): Result
  /** Whether the error is an ERR packet, rather than the driver's own. */
  protected abstract isAnswer(error: unknown): boolean
  /** The driver shall read nothing more, not even what it has of the last chunk. */
  protected abstract abandon(): void

  /** What `send` could not send at once has been sent. */
  protected caughtUp(done: Done): void {
    if (this.#blocker?.done !== done) return
    this.#blocker.asksAfter = this.wire.asks
    this.#blocker = undefined
    while (!this.#blocker && this.#line.length > 0) this.#line.shift()?.()
  }

  /** Nothing waits for what was sent to be answered before it goes on. */
  get #isFree(): boolean {
    return this.#blocker === undefined && this.#line.length === 0
  }

  /** Apart, since a closure beside the callback above would be kept with it. */
  #sendLater(piped: Piped): void {
    this.#line.push(() => this.#send(piped))
  }

  #send(piped: Piped): void {
    const { wire } = this
    // A lone one goes at once; those that follow in the same turn go together.
    if (this.#piped.length > 1) wire.gather()
    piped.asksBefore = wire.asks
    try {
      if (this.send(piped.statement, piped.done)) piped.asksAfter = wire.asks
      else if (piped.line === this.#piped) this.#blocker = piped
    } catch (error) {
      this.#answered(piped, error)
    }
  }

  #answered(piped: Piped, error?: unknown, rows?: unknown, fields?: unknown): void {
    if (piped.line !== this.#piped) return
    if (!this.wire.alive) {
      this.#answeredTooLate(piped, error)
      return
    }
    const fault = error ? this.#faultOf(piped, error) : undefined
    if (fault?.session === 'lost' && !this.isAnswer(error)) {
      this.abandon()
      this.#lose(error, piped)
      return
    }
    this.#piped.leave(piped)
    if (this.#piped.length === 0 && !this.#outcome) this.wire.rest()
    this.caughtUp(piped.done)
    if (fault) {
      piped.answer.reject(fault)
      return
    }
    let result: Result
    try {
      result = this.result(rows, fields)
    } catch (unreadable) {
      piped.answer.reject(new Fault('client', 'usable', 'unknown', unreadable))
      return
    }
    piped.answer.resolve(result)
  }

  /** No answer is believed now: the driver may have lost count. Over whose reply it has failed is known by the first error. */
  #answeredTooLate(piped: Piped, error: unknown): void {
    if (error && !this.isAnswer(error)) {
      this.#lose(error, piped)
      return
    }
    this.#piped.leave(piped)
    piped.answer.reject(asLost(this.#faultOf(piped, this.#ending())))
  }

  #faultOf(piped: Piped, error: unknown): Fault {
    const { statement, asksBefore, asksAfter = this.wire.asks } = piped
    const isAnswer = hasNumberOf(this.wire.farewell, error) || this.isAnswer(error)
    const sent = asksAfter > asksBefore
    if (!isAnswer && sent) this.wire.sever()
    return this.#classify(error, statement.sql, { isAnswer, sent, writeFailed: false, replied: true, sentBytes: 0 })
  }

  /** Everything that is under way ends with the session. `culprit` is the one over which the driver failed, if it was that. */
  #lose(error: unknown, culprit?: Piped): void {
    this.wire.sever()
    const cause = this.wire.farewell ?? error
    const piped = this.#piped.leaveAll()
    this.#line = []
    this.#blocker = undefined
    const outcome = this.#outcome
    this.#outcome = undefined
    const faults = piped.map((each) => {
      const fault = this.#faultOf(each, cause)
      return each === culprit ? fault : asLost(fault)
    })
    const last = outcome && this.#fault(cause, outcome.sql)
    piped.forEach(({ answer }, index) => answer.reject(faults[index]))
    this.#isHeld = false
    if (last) outcome.reject(culprit ? asLost(last) : last)
  }

  #command(run: (done: Done) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#begin({ sql: undefined, reject, resolve: () => resolve() }, () => run(this.#done))
    })
  }

  #begin(outcome: Outcome, send: () => void): void {
    const fault = this.#obstacle()
    if (fault) {
      outcome.reject(fault)
      return
    }
    this.#outcome = outcome
    if (this.#piped.length === 0) {
      this.#start(send)
      return
    }
    this.#isHeld = true
    const start = (): void => {
      this.#isHeld = false
      this.wire.next()
      this.#start(send)
    }
    if (this.#isFree) start()
    else this.#line.push(start)
  }

  #start(send: () => void): void {
    try {
      send()
    } catch (error) {
      this.#done(error)
    }
  }

  #obstacle(): Fault | undefined {
    if (this.#outcome)
      return new Fault('client', 'usable', 'none', new Error('this session is at work on another statement'))
    if (this.alive) return undefined
    return new Fault('lost', 'lost', 'none', this.#reason() ?? new Error('this session was closed before'))
  }

  readonly #done: Done = (error, rows, fields) => {
    const outcome = this.#outcome
    if (!outcome) return
    this.#outcome = undefined
    // mariadb reads no reply to a ping or a reset: a refusal is a good one to it.
    const failure = error ?? (outcome.sql === undefined ? this.wire.refusal : undefined)
    const fault = failure ? this.#fault(failure, outcome.sql) : undefined
    if (this.#piped.length === 0) this.wire.rest()
    if (fault) {
      outcome.reject(fault)
      if (this.#piped.length > 0 && !this.wire.alive) this.#lose(this.#ending())
      return
    }
    try {
      outcome.resolve(rows, fields)
    } catch (unreadable) {
      outcome.reject(new Fault('client', 'usable', 'unknown', unreadable))
    }
  }

  #fault(error: unknown, sql: string | undefined): Fault {
    const { wire } = this
    const isAnswer = hasNumberOf(wire.refusal ?? wire.farewell, error) || this.isAnswer(error)
    // A driver that fails over a reply may leave the rest of it for the next statement to find. With a local file, it is the file
    // that was not to be had, and the reply is still read.
    if (!isAnswer && wire.hasAsked && !wire.infile && !this.#isHeld) wire.sever()
    return this.#classify(error, sql, {
      isAnswer,
      sent: wire.hasAsked && !this.#isHeld,
      writeFailed: wire.failure?.syscall === 'write' || wire.failure?.code === 'EPIPE',
      replied: wire.infile || wire.hasReplied,
      sentBytes: wire.writtenSinceReply,
    })
  }

  #classify(error: unknown, sql: string | undefined, { isAnswer, ...evidence }: Findings): Fault {
    const fault = classify(error, {
      phase: 'statement',
      server: this.server,
      answered: isAnswer,
      alive: this.wire.alive,
      hungUp: this.wire.hungUp || this.#isLeaving,
      compound: isAnswer && sql !== undefined && isCompound(sql, this.server.flavour),
      traits: this.traits,
      ...evidence,
    })
    if (sql !== undefined) hideValues(error, sql)
    return fault
  }

  /** The driver has had its chance: what is still under way will never be answered. */
  #wireClosed(): void {
    const { first } = this.#piped
    this.#lose(this.#ending(), first)
    this.#tellEnded(this.#reason())
  }

  #ending(): Error {
    return this.#reason() ?? new Error('the connection was closed')
  }

  #reason(): Error | undefined {
    const { farewell, failure, hungUp } = this.wire
    if (farewell ?? failure) return farewell ?? failure?.error
    return hungUp && !this.#isLeaving ? new Error('the server closed the connection') : undefined
  }
}

/** What the wire showed of one statement. */
type Findings = Pick<Evidence, 'sent' | 'writeFailed' | 'replied' | 'sentBytes'> & { readonly isAnswer: boolean }

/** The session ended under a statement that had no part in it. */
function asLost(fault: Fault): Fault {
  return fault.kind === 'client' ? new Fault('lost', 'lost', fault.effect, fault.error) : fault
}

function noPipeline(): Fault {
  return new Fault('client', 'usable', 'none', new Error('this session does not pipeline'))
}

/** For drivers that say it twice: with an error, and that it is over. By then the next statement may be at work. */
export function once(done: Done): Done {
  let isDone = false
  return (...report) => {
    if (isDone) return
    isDone = true
    done(...report)
  }
}

/** The ERR packet that was seen on the wire is the one that the driver made its error of. */
function hasNumberOf(answer: { readonly errno: number } | undefined, error: unknown): boolean {
  return answer !== undefined && error instanceof Error && 'errno' in error && error.errno === answer.errno
}

/** mysql2 puts the text with its values filled in on the error. */
function hideValues(error: unknown, sql: string): void {
  if (error instanceof Error && 'sql' in error) error.sql = sql
}

/** Texts of which a part may be done, and committed, when the whole fails: procedures, and several statements in one. */
function isCompound(sql: string, flavour: Flavour): boolean {
  const { verb, leavesState, transaction } = shapeOf(sql, flavour)
  if (transaction !== 'unknown') return false
  return verb === 'call' || verb === 'execute' || verb === '' || leavesState === 'several statements'
}
