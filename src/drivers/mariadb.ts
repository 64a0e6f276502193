import type { Permit } from '../budget.js'
import { systemClock, type Clock } from '../clock.js'
import type { Driver, Result, Row, Server, Session, Statement } from '../driver.js'
import { defined, type ConnectConfig } from './config.js'
import { connectWith, type Connector } from './connect.js'
import { installedDriver, type InstalledDriver } from './installed.js'
import { plainValues, type Column } from './mariadb-values.js'
import type { Rows } from './rows.js'
import { DriverSession, once, type Done } from './session.js'
import { sslOf } from './ssl.js'
import { insertIdOf } from './values.js'
import type { Wire } from './wire.js'

/** What we call of `mariadb/callback`. */
interface Mariadb {
  createConnection(options: Record<string, unknown>): Connection
}

interface Connection {
  readonly threadId: number
  connect(done: (error?: unknown) => void): void
  on(event: 'error', listener: (error: unknown) => void): void
  query(sql: string, values: unknown, done?: Done): { stream(): RowEvents }
  prepare(sql: string, done: (error: unknown, prepared: Prepared) => void): void
  ping(done: Done): void
  reset(done: Done): void
}

interface Prepared {
  execute(
    values: unknown,
    options: { metaAsArray: true },
    done: (error: unknown, result?: [unknown, unknown]) => void,
  ): void
  executeStream(values: unknown): RowEvents
  close(): void
}

interface RowEvents {
  on(event: 'fields', listener: (columns: Column[]) => void): this
  on(event: 'data', listener: (row: Row) => void): this
  on(event: 'error', listener: (error: unknown) => void): this
  on(event: 'end', listener: () => void): this
}

interface Ok {
  readonly affectedRows: number
  readonly insertId: number | bigint | string
  readonly warningStatus: number
}

export function mariadbDriver(config: ConnectConfig, clock: Clock = systemClock, installed?: InstalledDriver): Driver {
  const connector = loadConnector(config, clock, installed)
  connector.catch(() => {}) // told by connect
  return {
    name: 'mariadb',
    connect: (_permit: Permit, signal: AbortSignal): Promise<Session> => connectWith(connector, config, signal),
  }
}

async function loadConnector(config: ConnectConfig, clock: Clock, installed?: InstalledDriver): Promise<Connector> {
  const mariadb = await (installed ?? installedDriver('mariadb')).load<Mariadb>()
  const options = optionsOf(config)
  const unpipelined = unpipelinedBy(options)
  const keepsNumbers = ['bigIntAsNumber', 'supportBigNumbers', 'typeCast'].some((name) => options[name] !== undefined)
  return {
    isAnswer,
    start(wire, password, done) {
      // Called on the connection's own options. A socketPath that was there before would be dialled instead; that one is set by
      // now tells the authentication that the channel is safe.
      const stream = function (this: { socketPath?: string | undefined }): unknown {
        this.socketPath = config.socketPath
        return wire.socket
      }
      const connection = mariadb.createConnection({ ...options, ...defined({ password }), stream })
      // One stays for good: an 'error' that nobody hears is thrown.
      connection.on('error', () => {})
      connection.connect(done)
      return (server) => new MariadbSession(connection, wire, server, clock, unpipelined, keepsNumbers)
    },
  }
}

function optionsOf(config: ConnectConfig): Record<string, unknown> {
  const { host, port, user, database, charset, timezone, ssl, connectAttributes, driverOptions } = config
  const { connectAttributes: own, ...options } = driverOptions ?? {}
  return {
    ...defined({ host, port, user, database, timezone, ssl: sslOf(ssl), ...charsetOf(charset) }),
    // As mysql2 has them: `SET ?` takes an object, BIT is a Buffer, and two columns may have one name.
    permitSetMultiParamEntries: true,
    bitOneIsBoolean: false,
    checkDuplicate: false,
    ...options,
    connectAttributes: { ...connectAttributes, ...(own as object | undefined) },
    // Bound values belong in no error.
    logParam: false,
    // It would open a connection that is not ours, to another server.
    permitRedirect: false,
    // Time is the pool's.
    connectTimeout: 0,
  }
}

/** Set in the handshake, a collation saves the round trip of a SET NAMES. This one is mysql2's. */
function charsetOf(charset: string | undefined): Record<string, unknown> {
  if (charset === undefined || charset.toLowerCase() === 'utf8mb4') return { collation: 'utf8mb4_unicode_ci' }
  return charset.includes('_') ? { collation: charset } : { charset }
}

/** The connector turns it off by itself when local files are allowed: the server would take what is behind for the file. */
function unpipelinedBy({ compress, pipelining, permitLocalInfile }: Record<string, unknown>): string | undefined {
  if (compress) return 'compression'
  if (pipelining !== undefined) return pipelining ? undefined : 'driverOptions.pipelining'
  return permitLocalInfile ? 'driverOptions.permitLocalInfile' : undefined
}

class MariadbSession extends DriverSession {
  readonly #connection: Connection
  readonly #keepsNumbers: boolean

  constructor(
    connection: Connection,
    wire: Wire,
    server: Server,
    clock: Clock,
    unpipelined: string | undefined,
    keepsNumbers: boolean,
  ) {
    super(wire, connection.threadId, server, clock, unpipelined)
    this.#connection = connection
    this.#keepsNumbers = keepsNumbers
  }

  protected send({ sql, values, prepare }: Statement, done: Done): boolean {
    if (!prepare) {
      this.#start(done, () => this.#connection.query(sql, values, done))
      return true
    }
    return this.#prepare(sql, done, (prepared) =>
      prepared.execute(values, { metaAsArray: true }, (error, result) => {
        prepared.close()
        // Until 3.5.3 it tells what the command has thrown.
        if (error && !hasNumber(error)) this.wire.sever()
        done(error, result?.[0], result?.[1])
      }),
    )
  }

  protected flow({ sql, values, prepare }: Statement, rows: Rows, done: Done): void {
    if (!prepare) {
      this.#start(done, () => this.#listen(this.#connection.query(sql, values).stream(), rows, done))
      return
    }
    this.#prepare(sql, done, (prepared) =>
      this.#listen(prepared.executeStream(values), rows, (error) => {
        prepared.close()
        done(error)
      }),
    )
  }

  protected sendPing(done: Done): void {
    this.#connection.ping(done)
  }

  protected sendReset(done: Done): void {
    this.#connection.reset(done)
  }

  protected result(rows: unknown, fields: unknown): Result {
    return this.#resultOf(rows, fields)
  }

  protected isAnswer(error: unknown): boolean {
    return isAnswer(error)
  }

  protected abandon(): void {}

  /**
   * Not `connection.execute`: it pipelines EXECUTE behind PREPARE, and when that fails with 1461 the server runs the statement
   * that was prepared before (facts/errors.md, 2.14). Besides, what it throws for a value that cannot be bound is thrown at
   * nobody, and ends the process. `pipelining: false` would mend the first, but with it 3.5.1 to 3.5.3 hang.
   */
  #prepare(sql: string, done: Done, then: (prepared: Prepared) => void): boolean {
    let isSent = false
    this.#connection.prepare(sql, (error, prepared) => {
      if (error) done(error)
      else this.#start(done, () => then(prepared))
      isSent = true
      this.caughtUp(done)
    })
    return isSent
  }

  /**
   * A command that throws for its values (JSON with a circle) stays in the connector's queue for good, with all that come after
   * it behind it: the session is of no more use.
   */
  #start(done: Done, command: () => void): void {
    try {
      command()
    } catch (error) {
      this.wire.sever()
      done(error)
    }
  }

  #listen(events: RowEvents, rows: Rows, done: Done): void {
    const settle = once(done)
    let toPlain: ((row: Row) => void) | undefined
    events
      .on('fields', (columns) => (toPlain = this.#keepsNumbers ? undefined : plainValues(columns)))
      .on('data', (row) => {
        if (isOk(row)) return
        toPlain?.(row)
        rows.push(row)
      })
      .on('error', settle)
      .on('end', () => settle())
  }

  /** `fields` is a list of columns for rows, an empty one for an OK, and a list of lists for several results. */
  #resultOf(rows: unknown, fields: unknown): Result {
    if (!Array.isArray(rows)) return okOf(rows as Ok | undefined)
    const columns = fields as Column[]
    if (!isSeveral(columns)) {
      const toPlain = this.#keepsNumbers ? undefined : plainValues(columns)
      if (toPlain) for (const row of rows) toPlain(row)
      return { rows, fields: columns, affectedRows: 0, insertId: 0, warnings: 0 }
    }
    const results = rows.map((each, index) => this.#resultOf(each, columns[index]))
    const main = results.find((each) => each.fields.length > 0) ?? results[0] ?? okOf(undefined)
    return { ...main, results }
  }
}

/**
 * An error with a number that the connector did not give itself. Its own are 45001 to 45065; a SIGNAL may use them too, and is
 * known by its SQLSTATE then.
 */
function isAnswer(error: unknown): boolean {
  if (!hasNumber(error)) return false
  return !(error.errno > 45000 && error.errno < 46000 && 'sqlState' in error && error.sqlState !== '45000')
}

/** The server's, or the connector's own. Node's are below 0. */
function hasNumber(error: unknown): error is Error & { readonly errno: number } {
  return error instanceof Error && 'errno' in error && typeof error.errno === 'number' && error.errno > 0
}

/** Where a result is an OK its columns are null, or a hole in the list. */
function isSeveral(columns: readonly unknown[]): boolean {
  const first = columns.find((each) => each !== undefined && each !== null)
  return first === undefined || Array.isArray(first)
}

/** Row streams give the OK at the end of a CALL as a row. Its class is not exported; rows are plain. */
function isOk(row: Row): boolean {
  return (
    typeof row === 'object' && row !== null && !Array.isArray(row) && Object.getPrototypeOf(row) !== Object.prototype
  )
}

function okOf(ok: Ok | undefined): Result {
  const { affectedRows = 0, insertId = 0, warningStatus = 0 } = ok ?? {}
  return { rows: [], fields: [], affectedRows, insertId: insertIdOf(insertId), warnings: warningStatus }
}
