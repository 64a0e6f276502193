import type { Flavour, Result, Server, Session } from '../driver.js'
import { isBefore } from '../version.js'
import type { Told } from './ledger.js'

/** What the server told of its limits, from the newest session. `undefined`: it did not tell, or there is none. */
export interface Limits {
  readonly server: { readonly flavour: Flavour; readonly version: string }
  /** Sessions that this account may hold at once, over all its programs. */
  readonly maxUserConnections: number | undefined
  /** Sessions that the server takes from all its accounts. */
  readonly maxConnections: number | undefined
  /** Idle for longer, a session is closed by the server. */
  readonly waitTimeoutMs: number | undefined
  readonly netReadTimeoutMs: number | undefined
  /** A reader that takes nothing for longer is cut off in the middle of its result. */
  readonly netWriteTimeoutMs: number | undefined
  /** Bytes; a longer statement ends the session. */
  readonly maxAllowedPacket: number | undefined
  /** Over all sessions of the server. */
  readonly maxPreparedStmtCount: number | undefined
  /** The server's own limit for a statement (MySQL: for a SELECT). */
  readonly maxStatementTimeMs: number | undefined
}

/** Who a session is on the server: enough to be sure that a KILL hits it and nobody else. */
export interface Identity {
  readonly connectionId: string
  /** The table that shows the server's threads. */
  readonly threads: string
  /** The client's address as the server's processlist shows it. Empty when the server did not tell. */
  readonly peer: string
}

/** Which database and which roles a session works with; empty for none. */
export interface Home {
  readonly database: string
  readonly role: string
}

/** What a new session learned, in one round trip. */
export interface Learned {
  readonly limits: Limits
  readonly identity: Identity
  /** Sessions that the account held then, this one among them; 0 when nobody counts. */
  readonly accountHeld: number
  /** Makes the session whole again after a reset; undefined when the server did not tell how it was. */
  readonly restore: string | undefined
  /** What no reset takes back. */
  readonly home: Home
  /** The server begins a transaction by itself: no session is ever provably clean. */
  readonly autocommit: boolean
}

const THREADS = 'information_schema.PROCESSLIST'
const MYSQL_THREADS = 'performance_schema.processlist'

// Own threads can be seen without any privilege on both servers. The count is only made where an account has a limit.
// In a text, MariaDB writes ON where MySQL writes 1; as a number both are 1.
const COLUMNS = {
  maxUserConnections: '@@session.max_user_connections',
  maxConnections: '@@global.max_connections',
  waitTimeout: '@@session.wait_timeout',
  netReadTimeout: '@@session.net_read_timeout',
  netWriteTimeout: '@@session.net_write_timeout',
  maxAllowedPacket: '@@session.max_allowed_packet',
  maxPreparedStmtCount: '@@global.max_prepared_stmt_count',
  autocommit: '@@session.autocommit + 0',
  rollbackOnTimeout: '@@global.innodb_rollback_on_timeout + 0',
  sqlMode: '@@session.sql_mode',
  charsetClient: '@@session.character_set_client',
  charsetResults: '@@session.character_set_results',
  collation: '@@session.collation_connection',
  database: 'DATABASE()',
  connectionId: 'CONNECTION_ID()',
  peer: `(SELECT HOST FROM ${THREADS} WHERE ID = CONNECTION_ID())`,
  accountHeld: `IF(@@session.max_user_connections > 0, (SELECT COUNT(*) FROM ${THREADS} WHERE USER = SUBSTRING_INDEX(USER(), '@', 1)), 0)`,
} as const

type Column = keyof typeof COLUMNS | 'maxStatementTime' | 'role'
type Answers = Record<Column, string>

/** One text: rows may be arrays, nested or cast by the user's driver options, but a single string is a single string. */
function question(columns: readonly (readonly [string, string])[]): string {
  // A value never holds a line feed; CONCAT_WS leaves NULL out, and an empty string must keep its place.
  return `SELECT CONCAT_WS('\\n', ${columns.map(([, sql]) => `IFNULL(${sql}, '')`).join(', ')}) AS learned`
}

function columnsFor(server: Server, threads: string): (readonly [string, string])[] {
  const statementTime =
    server.flavour === 'mariadb' ? '@@session.max_statement_time * 1000' : '@@session.max_execution_time'
  const columns = Object.entries(COLUMNS).map(([name, sql]) => [name, sql.replace(THREADS, threads)] as const)
  return [...columns, ['maxStatementTime', statementTime], ['role', roleOf(server)]]
}

/**
 * While any thread runs a text with a character beyond utf8mb3, an emoji say, MySQL cannot read its information_schema's table
 * (3854; measured on 9.7). From 8.0.22 on it has another, empty where the performance schema is off.
 */
function threadsOf({ flavour, version }: Server): string {
  return flavour === 'mysql' && !isBefore(version, '8.0.22') ? MYSQL_THREADS : THREADS
}

/** Where a session works now. */
export async function whereIs(session: Session): Promise<Home> {
  const columns = [['database', COLUMNS.database] as const, ['role', roleOf(session.server)] as const]
  const [database = '', role = ''] = textsOf(await session.query({ sql: question(columns) }))
  return { database, role }
}

/** MySQL has roles from 8.0 on. */
function roleOf({ flavour, version }: Server): string {
  return flavour === 'mariadb' || !isBefore(version, '8.0.0') ? 'CURRENT_ROLE()' : "''"
}

function textsOf({ rows }: Result): string[] {
  return String(onlyValue(rows[0])).split('\n')
}

/** What the ledger's decisions need of it. */
export function toldBy({ limits, accountHeld }: Learned): Told {
  return {
    accountLimit: limits.maxUserConnections ?? Infinity,
    serverLimit: limits.maxConnections ?? Infinity,
    accountHeld,
    waitTimeoutMs: limits.waitTimeoutMs ?? Infinity,
  }
}

/** Asks the session what holds for it, and tells it. A server, or a proxy, that does not answer such questions tells nothing. */
export async function learn(session: Session): Promise<Learned> {
  let threads = threadsOf(session.server)
  let answers = await ask(session, threads)
  if (answers.peer === '' && threads !== THREADS) {
    const others = await ask(session, THREADS)
    if (others.peer !== '') [threads, answers] = [THREADS, others]
  }
  session.traits = {
    maxAllowedPacket: positive(answers.maxAllowedPacket),
    rollbackOnTimeout: answers.rollbackOnTimeout === '1',
  }
  return read(session, answers, threads)
}

async function ask(session: Session, threads: string): Promise<Answers> {
  const columns = columnsFor(session.server, threads)
  const answer = await session.query({ sql: question(columns) }).catch((error: unknown) => {
    if (!session.alive || (error as { session?: unknown }).session !== 'usable') throw error
    return undefined
  })
  const texts = answer === undefined ? [] : textsOf(answer)
  return Object.fromEntries(columns.map(([name], index) => [name, texts[index] ?? ''])) as Answers
}

function read(session: Session, answers: Answers, threads: string): Learned {
  return {
    limits: {
      server: session.server,
      maxUserConnections: positive(answers.maxUserConnections),
      maxConnections: positive(answers.maxConnections),
      waitTimeoutMs: seconds(answers.waitTimeout),
      netReadTimeoutMs: seconds(answers.netReadTimeout),
      netWriteTimeoutMs: seconds(answers.netWriteTimeout),
      maxAllowedPacket: positive(answers.maxAllowedPacket),
      maxPreparedStmtCount: positive(answers.maxPreparedStmtCount),
      maxStatementTimeMs: positive(answers.maxStatementTime),
    },
    identity: { connectionId: answers.connectionId || String(session.threadId), threads, peer: answers.peer },
    accountHeld: Number(answers.accountHeld) || 0,
    restore: restoring(answers),
    home: { database: answers.database, role: answers.role },
    autocommit: answers.autocommit !== '0',
  }
}

/**
 * A reset sets session variables to the server's defaults, not to what the handshake had asked for: MySQL loses the
 * character set, both lose the sql_mode that the driver's IGNORE_SPACE flag had made.
 */
function restoring(answers: Answers): string | undefined {
  if (answers.charsetClient === '') return undefined
  const set = [
    `character_set_client = ${answers.charsetClient}`,
    `character_set_results = ${answers.charsetResults || 'NULL'}`,
    `collation_connection = ${answers.collation}`,
    `sql_mode = '${answers.sqlMode.replaceAll("'", "''")}'`,
  ]
  return `SET ${set.map((one) => `SESSION ${one}`).join(', ')}`
}

/** Whatever form the driver's options give to rows. */
export function onlyValue(row: unknown): unknown {
  let value = row
  while (typeof value === 'object' && value !== null && !Buffer.isBuffer(value)) value = Object.values(value)[0]
  return value
}

function positive(text: string): number | undefined {
  const number = Number(text)
  return number > 0 ? number : undefined
}

function seconds(text: string): number | undefined {
  const number = positive(text)
  return number === undefined ? undefined : number * 1000
}
