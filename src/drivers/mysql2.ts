import type { Permit } from '../budget.js'
import { systemClock, type Clock } from '../clock.js'
import type { Driver, Result, Row, Server, Session, Statement } from '../driver.js'
import { defined, type ConnectConfig } from './config.js'
import { connectWith, type Connector } from './connect.js'
import { installedDriver, type InstalledDriver } from './installed.js'
import type { Rows } from './rows.js'
import { pipelineCommands } from './mysql2-pipeline.js'
import { rehearse } from './mysql2-rehearsal.js'
import { DriverSession, once, type Done } from './session.js'
import { sslOf } from './ssl.js'
import { insertIdOf } from './values.js'
import type { Wire } from './wire.js'

/**
 * Prepared statements that one session keeps. mysql2's own 16 000 would let a single session take nearly all that the
 * server has for everybody (max_prepared_stmt_count, 16 382), and then every client gets 1461.
 */
const PREPARED_STATEMENTS = 200

/** What we call of mysql2. */
interface Mysql2 {
  createConnection(options: Record<string, unknown>): Connection
}

interface Connection {
  readonly threadId: number
  connect(done: (error?: unknown) => void): void
  on(event: 'error', listener: (error: unknown) => void): void
  query(sql: string, values: unknown, done: Done): unknown
  query(options: { sql: string; values: unknown }): Command
  execute(sql: string, values: unknown, done: Done): unknown
  execute(options: { sql: string; values: unknown }): Command
  ping(done: Done): void
  /** From 3.22.0 on. */
  reset?(done: Done): void
  changeUser(options: object, done: Done): void
  pause(): void
  destroy(): void
}

interface Command {
  on(event: 'fields', listener: (fields: unknown) => void): this
  on(event: 'result', listener: (row: Row) => void): this
  on(event: 'error', listener: (error: unknown) => void): this
  on(event: 'end', listener: () => void): this
}

interface Ok {
  readonly affectedRows: number
  readonly insertId: number | string
  readonly warningStatus: number
}

export function mysql2Driver(config: ConnectConfig, clock: Clock = systemClock, installed?: InstalledDriver): Driver {
  const connector = loadConnector(config, clock, installed)
  connector.catch(() => {}) // told by connect
  return {
    name: 'mysql2',
    connect: (_permit: Permit, signal: AbortSignal): Promise<Session> => connectWith(connector, config, signal),
  }
}

async function loadConnector(config: ConnectConfig, clock: Clock, installed?: InstalledDriver): Promise<Connector> {
  const release = installed ?? installedDriver('mysql2')
  const mysql2 = await release.load<Mysql2>()
  const options = optionsOf(config)
  const unpipelined = options['compress'] ? 'compression' : await unpipelinedBy(mysql2, release.version)
  return {
    isAnswer,
    start(wire, password, done) {
      const connection = mysql2.createConnection({ ...options, ...defined({ password }), stream: () => wire.socket })
      // One stays for good: mysql2 emits what no command is there to take, and an 'error' that nobody hears is thrown.
      connection.on('error', () => {})
      connection.connect(done)
      return (server) => new Mysql2Session(connection, wire, server, clock, unpipelined)
    },
  }
}

async function unpipelinedBy(mysql2: Mysql2, version: string): Promise<string | undefined> {
  const what = await rehearse(mysql2)
  return what && `mysql2 ${version} is not as expected inside: ${what}`
}

function optionsOf(config: ConnectConfig): Record<string, unknown> {
  const { host, port, socketPath, user, database, charset, timezone, ssl, connectAttributes, driverOptions } = config
  const { connectAttributes: own, ...options } = driverOptions ?? {}
  return {
    ...defined({ host, port, socketPath, user, database, charset, timezone, ssl: sslOf(ssl) }),
    supportBigNumbers: true,
    maxPreparedStatements: PREPARED_STATEMENTS,
    ...options,
    connectAttributes: { ...connectAttributes, ...(own as object | undefined) },
    // Time is the pool's.
    connectTimeout: 0,
  }
}

class Mysql2Session extends DriverSession {
  readonly #connection: Connection
  /** Until all of the statement is sent. */
  #sending: Done | undefined

  constructor(connection: Connection, wire: Wire, server: Server, clock: Clock, unpipelined: string | undefined) {
    super(wire, connection.threadId, server, clock, unpipelined)
    this.#connection = connection
    if (unpipelined !== undefined) return
    pipelineCommands(connection, () => this.#late())
  }

  protected send(statement: Statement, done: Done): boolean {
    this.#sending = done
    if (statement.prepare) this.#connection.execute(statement.sql, statement.values, done)
    else this.#connection.query(statement.sql, statement.values, done)
    const isComplete = this.#sending === done
    this.#sending = undefined
    return isComplete
  }

  /** The execution is sent when the statement has been prepared. */
  #late(): () => void {
    const done = this.#sending
    this.#sending = undefined
    return () => {
      if (done) this.caughtUp(done)
    }
  }

  protected flow({ sql, values, prepare }: Statement, rows: Rows, done: Done): void {
    const command = prepare ? this.#connection.execute({ sql, values }) : this.#connection.query({ sql, values })
    const settle = once(done)
    let isRow = false
    command
      // A statement's OK comes as a 'result' too, and nothing as its 'fields'.
      .on('fields', (fields) => (isRow = fields !== undefined))
      .on('result', (row) => {
        if (isRow) rows.push(row)
      })
      .on('error', settle)
      .on('end', () => settle())
  }

  protected sendPing(done: Done): void {
    this.#connection.ping(done)
  }

  protected sendReset(done: Done): void {
    if (this.#connection.reset) {
      this.#connection.reset(done)
      return
    }
    // COM_CHANGE_USER to the same user does all that COM_RESET_CONNECTION does, and authenticates once more. When that fails
    // (the password was changed meanwhile), the server hangs up.
    this.#connection.changeUser({}, (error) => {
      if (error) this.wire.sever()
      done(error)
    })
  }

  protected result(rows: unknown, fields: unknown): Result {
    return resultOf(rows, fields)
  }

  protected isAnswer(error: unknown): boolean {
    return isAnswer(error)
  }

  /** Else it would go on with the chunk, give it to the next commands, and write to the console that the numbers are wrong. */
  protected abandon(): void {
    this.#connection.pause()
  }
}

/** mysql2 puts the SQLSTATE on the error of an ERR packet, and on no other. */
function isAnswer(error: unknown): boolean {
  return (
    error instanceof Error &&
    'sqlState' in error &&
    'errno' in error &&
    typeof error.errno === 'number' &&
    error.errno > 0
  )
}

/** `fields` is a list of columns for rows, nothing for an OK, and a list of those two for several results. */
function resultOf(rows: unknown, fields: unknown): Result {
  if (!Array.isArray(fields)) return okOf(rows as Ok)
  const first: unknown = fields[0]
  if (first !== undefined && !Array.isArray(first))
    return { rows: rows as Row[], fields, affectedRows: 0, insertId: 0, warnings: 0 }
  const results = (rows as unknown[]).map((each, index) => resultOf(each, fields[index]))
  const main = results.find((each) => each.fields.length > 0) ?? results[0] ?? okOf(undefined)
  return { ...main, results }
}

function okOf(ok: Ok | undefined): Result {
  const { affectedRows = 0, insertId = 0, warningStatus = 0 } = ok ?? {}
  return { rows: [], fields: [], affectedRows, insertId: insertIdOf(insertId), warnings: warningStatus }
}
