import type { Permit } from '../budget.js'
import type { Clock } from '../clock.js'
import type { Answer, Driver, Result, RowStream, Session, Statement } from '../driver.js'
import { Fault, type FaultKind } from '../faults/fault.js'

/** What a step of a fake session does. `never` hangs until the session is destroyed. */
export type Fate = 'ok' | 'fail' | 'slow' | 'never'

export type Step = 'connect' | 'query' | 'ping' | 'reset' | 'close'

const SLOW_MS = 700

/** A driver without a server: each step of each session does what `fates` says when it begins. */
export class FakeDriver implements Driver {
  readonly name = 'fake'
  readonly sessions: FakeSession[] = []
  /** Asked at each step. */
  fates: (step: Step, session: FakeSession | undefined) => Fate = () => 'ok'
  /** Whether its sessions pipeline. */
  pipelines = false
  /** Whether a READ ONLY session refuses what begins with `SELECT write`. */
  honours = true
  /** What a failed connect is. */
  refusal: FaultKind = 'unreachable'
  dials = 0
  readonly #clock: Clock

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Sessions that were opened and have not ended. */
  get open(): FakeSession[] {
    return this.sessions.filter((session) => session.alive)
  }

  async connect(permit: Permit, signal: AbortSignal): Promise<Session> {
    this.dials++
    await this.step(
      this.fates('connect', undefined),
      signal,
      () => new Fault(this.refusal, 'lost', 'none', new Error(`refused: ${this.refusal}`)),
    )
    const session = new FakeSession(this, this.sessions.length + 1)
    this.sessions.push(session)
    return session
  }

  /** @internal */
  async step(fate: Fate, signal: AbortSignal | undefined, failure: () => Error): Promise<void> {
    let abort: (() => void) | undefined
    try {
      await new Promise<void>((resolve, reject) => {
        abort = () => reject(signal?.reason as Error)
        if (signal?.aborted) abort()
        signal?.addEventListener('abort', abort)
        if (fate === 'ok') resolve()
        else if (fate === 'fail') reject(failure())
        else if (fate === 'slow') this.#clock.after(SLOW_MS, resolve)
      })
    } finally {
      if (abort) signal?.removeEventListener('abort', abort)
    }
  }
}

export class FakeSession implements Session {
  readonly threadId: number
  readonly server = { flavour: 'mariadb', version: 'fake' } as const
  readonly pipelines: boolean
  readOnly = false
  /** Statements under way, each behind the one before. */
  depth = 0
  readonly ended: Promise<Error | undefined>
  alive = true
  held = true
  /** How many use it now: more than one would be two owners. */
  users = 0
  readonly statements: string[] = []
  readonly #driver: FakeDriver
  readonly #gone = new AbortController()
  #last: Promise<unknown> = Promise.resolve()
  #end!: (reason: Error | undefined) => void

  constructor(driver: FakeDriver, threadId: number) {
    this.#driver = driver
    this.threadId = threadId
    this.pipelines = driver.pipelines
    this.ended = new Promise((resolve) => (this.#end = resolve))
  }

  async query(statement: Statement): Promise<Result> {
    // The pool's first question is not answered, as behind a proxy that knows no system variables.
    if (statement.sql.startsWith('SELECT CONCAT_WS'))
      throw new Fault('statement', 'usable', 'none', new Error('unknown variable'))
    this.statements.push(statement.sql)
    await this.#run('query')
    return { rows: [{ threadId: this.threadId }], fields: [], affectedRows: 0, insertId: 0, warnings: 0 }
  }

  pipe(statement: Statement, answer: Answer): void {
    this.depth++
    const answered = this.#last.then(() => this.#answer(statement))
    this.#last = answered.catch(() => undefined)
    const done = (): void => void this.depth--
    answered.then(
      (result) => (done(), answer.resolve(result)),
      (fault: unknown) => (done(), answer.reject(fault)),
    )
  }

  async #answer({ sql }: Statement): Promise<Result> {
    if (!this.alive) throw new Fault('lost', 'lost', 'unknown', new Error('the connection had ended'))
    if (sql.startsWith('SET SESSION TRANSACTION')) this.readOnly = sql.endsWith('ONLY')
    else if (this.readOnly && this.#driver.honours && /^(DROP|SELECT write)/.test(sql))
      throw new Fault('read-only', 'usable', 'none', Object.assign(new Error('READ ONLY'), { errno: 1792 }))
    else if (!/^(DROP|SELECT @@)/.test(sql)) {
      this.statements.push(sql)
      await this.#step('query')
    }
    const row = sql.startsWith('SELECT @@') ? { only: Number(this.readOnly) } : { threadId: this.threadId, sql }
    return { rows: [row], fields: [], affectedRows: 0, insertId: 0, warnings: 0 }
  }

  stream(): RowStream {
    throw new Error('a fake has no rows to stream')
  }

  ping(): Promise<void> {
    return this.#run('ping')
  }

  reset(): Promise<void> {
    return this.#run('reset')
  }

  async close(withinMs: number): Promise<void> {
    const fate = this.#driver.fates('close', this)
    if (fate === 'ok') this.die()
    else if (fate === 'slow' || fate === 'never')
      await this.#driver.step('slow', AbortSignal.timeout(withinMs), () => new Error()).catch(() => undefined)
    this.destroy()
  }

  destroy(): void {
    this.die()
  }

  hold(on: boolean): void {
    this.held = on
  }

  /** The connection ends. */
  die(reason?: Error): void {
    if (!this.alive) return
    this.alive = false
    this.#gone.abort(new Fault('lost', 'lost', 'unknown', reason ?? new Error('the connection ended')))
    this.#end(reason)
  }

  async #run(step: Step): Promise<void> {
    if (!this.alive) throw new Fault('lost', 'lost', 'none', new Error('the connection had ended'))
    if (++this.users > 1) throw new Error('two owners use one session')
    try {
      await this.#last
      await this.#step(step)
    } finally {
      this.users--
    }
  }

  #step(step: Step): Promise<void> {
    return this.#driver.step(this.#driver.fates(step, this), this.#gone.signal, () => {
      this.die()
      return new Fault('lost', 'lost', 'unknown', new Error(`${step} failed`))
    })
  }
}
