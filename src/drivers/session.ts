import type { Clock } from '../clock.js'
import type { Flavour, Result, RowStream, Server, ServerTraits, Session, Statement } from '../driver.js'
import { classify, type Evidence } from '../faults/classify.js'
import { Fault } from '../faults/fault.js'
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

/**
 * A session over a driver's connection. It knows nothing of the driver but four verbs, and trusts it with nothing but the
 * protocol: whether a statement was sent, whether the connection lives and when it is gone are read off the wire. However
 * often the driver calls back, and also if it never does, a statement settles once.
 */
export abstract class DriverSession implements Session {
  readonly threadId: number
  readonly server: Server
  readonly ended: Promise<Error | undefined>
  readonly pipelines: boolean = false
  traits?: ServerTraits
  protected readonly wire: Wire
  readonly #clock: Clock
  #outcome: Outcome | undefined
  #isLeaving = false
  #closing: Promise<void> | undefined
  #tellEnded!: (reason: Error | undefined) => void

  constructor(wire: Wire, threadId: number, server: Server, clock: Clock) {
    this.wire = wire
    this.threadId = threadId
    this.server = server
    this.#clock = clock
    this.ended = new Promise((resolve) => (this.#tellEnded = resolve))
    wire.rest()
    if (wire.isClosed) this.#wireClosed()
    else wire.onClosed = () => this.#wireClosed()
  }

  get alive(): boolean {
    return this.wire.alive && !this.#isLeaving
  }

  query(statement: Statement): Promise<Result> {
    return new Promise((resolve, reject) => {
      const outcome: Outcome = {
        sql: statement.sql,
        reject,
        resolve: (rows, fields) => resolve(this.result(rows, fields)),
      }
      if (!this.#begin(outcome)) return
      try {
        this.send(statement, this.#done)
      } catch (error) {
        this.#done(error)
      }
    })
  }

  stream(statement: Statement): RowStream {
    const rows = new Rows(this.wire)
    const outcome: Outcome = {
      sql: statement.sql,
      reject: (fault) => rows.finish(fault.session === 'usable', fault),
      resolve: () => rows.finish(true),
    }
    if (!this.#begin(outcome)) return rows
    try {
      this.flow(statement, rows, this.#done)
    } catch (error) {
      this.#done(error)
    }
    return rows
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

  /** Sends a statement and collects the whole result. May throw for arguments that it does not take. */
  protected abstract send(statement: Statement, done: Done): void
  /** Sends a statement and pushes its rows; `done` when the server is done. */
  protected abstract flow(statement: Statement, rows: Rows, done: Done): void
  protected abstract sendPing(done: Done): void
  protected abstract sendReset(done: Done): void
  /** What the driver gave to `done`, in our words. */
  protected abstract result(rows: unknown, fields: unknown): Result
  /** Whether the error is an ERR packet, rather than the driver's own. */
  protected abstract isAnswer(error: unknown): boolean

  #command(run: (done: Done) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      if (!this.#begin({ sql: undefined, reject, resolve: () => resolve() })) return
      try {
        run(this.#done)
      } catch (error) {
        this.#done(error)
      }
    })
  }

  #begin(outcome: Outcome): boolean {
    if (this.#outcome)
      outcome.reject(new Fault('client', 'usable', 'none', new Error('this session is at work on another statement')))
    else if (!this.alive)
      outcome.reject(new Fault('lost', 'lost', 'none', this.#reason() ?? new Error('this session was closed before')))
    else {
      this.#outcome = outcome
      return true
    }
    return false
  }

  readonly #done: Done = (error, rows, fields) => {
    const outcome = this.#outcome
    if (!outcome) return
    this.#outcome = undefined
    // mariadb reads no reply to a ping or a reset: a refusal is a good one to it.
    const failure = error ?? (outcome.sql === undefined ? this.wire.refusal : undefined)
    const fault = failure ? this.#fault(failure, outcome.sql) : undefined
    this.wire.rest()
    if (fault) {
      outcome.reject(fault)
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
    if (!isAnswer && wire.hasAsked && !wire.infile) wire.sever()
    const evidence: Evidence = {
      phase: 'statement',
      server: this.server,
      answered: isAnswer,
      alive: wire.alive,
      hungUp: wire.hungUp || this.#isLeaving,
      sent: wire.hasAsked,
      writeFailed: wire.failure?.syscall === 'write' || wire.failure?.code === 'EPIPE',
      replied: wire.infile || wire.received > wire.receivedAtWrite,
      sentBytes: wire.writtenSinceReply,
      compound: isAnswer && sql !== undefined && isCompound(sql, this.server.flavour),
      traits: this.traits,
    }
    if (sql !== undefined) hideValues(error, sql)
    return classify(error, evidence)
  }

  /** The driver has had its chance: what is still under way will never be answered. */
  #wireClosed(): void {
    this.#done(this.#reason() ?? new Error('the connection was closed'))
    this.#tellEnded(this.#reason())
  }

  #reason(): Error | undefined {
    const { farewell, failure, hungUp } = this.wire
    if (farewell ?? failure) return farewell ?? failure?.error
    return hungUp && !this.#isLeaving ? new Error('the server closed the connection') : undefined
  }
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
