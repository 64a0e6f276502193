import type { Budget } from '../budget.js'
import type { Driver, Result } from '../driver.js'
import { HoldfastError } from '../errors.js'

export type SessionInit =
  | string
  | readonly string[]
  | ((session: { query(sql: string, values?: unknown): Promise<Result> }) => Promise<unknown>)

/** What `createPool` takes. Durations are milliseconds. An option it does not know is refused, with the nearest name. */
export interface PoolOptions {
  /** `mysql://user:password@host:port/database?option=value`; options beside it win over its parts. */
  url?: string
  /** @default 'localhost' */
  host?: string
  /** @default 3306 */
  port?: number
  /** A unix socket, instead of host and port. */
  socketPath?: string
  user?: string
  /** A function is asked at each new session: for credentials that rotate. */
  password?: string | (() => string | Promise<string>)
  database?: string
  /** Character set or collation of the sessions, as the driver names it. @default the driver's, utf8mb4 */
  charset?: string
  /** Time zone for dates, as the driver takes it. @default the driver's, 'local' */
  timezone?: string
  /** TLS: `true`, or options as the driver takes them. @default none */
  ssl?: boolean | string | object

  /** Sessions at the most; the server's own limits count too. @default 10 */
  max?: number
  /** Idle sessions that are kept, and kept alive. @default 0 */
  minIdle?: number
  /** One deadline for queue, dial and check. @default 10_000 */
  acquireTimeoutMs?: number
  /** For the whole of opening a session: name, TCP, TLS, authentication, first questions. @default 5_000 */
  connectTimeoutMs?: number
  /** Of each statement that has no `timeoutMs` of its own. @default none */
  queryTimeoutMs?: number
  /** Waiters at the most; the next one is refused with POOL_QUEUE_FULL. @default 10_000 */
  queueLimit?: number
  /** An idle session is closed after this, and always safely before the server's wait_timeout. @default 60_000 */
  idleTimeoutMs?: number
  /** A session is replaced after this (up to a tenth less, so that not all are due together). @default 1_800_000 */
  maxLifetimeMs?: number
  /** Quiet for longer, a session gets the free look (a turn of the event loop) before it is lent. @default 500 */
  trustMs?: number
  /** Quiet for longer, a session is pinged before it is lent. @default 30_000 */
  pingAfterMs?: number
  /** A lease held for longer is reported, once. @default 60_000 */
  leakAfterMs?: number
  /** What happens to it then: a warning, or the session is taken back. @default 'warn' */
  onLeak?: 'warn' | 'reclaim'
  /** Whether reads may share sessions. @default 'reads' */
  lanes?: 'reads' | 'off'
  /** @default the one that is installed, mysql2 if both are */
  driver?: 'mysql2' | 'mariadb' | Driver
  /** Handed through to the driver. */
  driverOptions?: Record<string, unknown>
  /** Statements, or a function, that make a new session ready; done again whenever a session was reset. */
  sessionInit?: SessionInit
  /** In errors, warnings, events, and as program_name on the server. @default the database's name, or 'pool' */
  name?: string
  /** Who grants the right to open a session. @default one counter for each account in this process */
  budget?: Budget
}

/** Complete and checked. */
export interface ResolvedOptions extends Omit<PoolOptions, 'url'> {
  host: string
  port: number
  max: number
  minIdle: number
  acquireTimeoutMs: number
  connectTimeoutMs: number
  queryTimeoutMs: number
  queueLimit: number
  idleTimeoutMs: number
  maxLifetimeMs: number
  trustMs: number
  pingAfterMs: number
  leakAfterMs: number
  onLeak: 'warn' | 'reclaim'
  lanes: 'reads' | 'off'
  name: string
}

const DEFAULTS = {
  host: 'localhost',
  port: 3306,
  max: 10,
  minIdle: 0,
  acquireTimeoutMs: 10_000,
  connectTimeoutMs: 5_000,
  queryTimeoutMs: Infinity,
  queueLimit: 10_000,
  idleTimeoutMs: 60_000,
  maxLifetimeMs: 1_800_000,
  trustMs: 500,
  pingAfterMs: 30_000,
  leakAfterMs: 60_000,
  onLeak: 'warn',
  lanes: 'reads',
} as const

type Kind = 'text' | 'count' | 'ms' | 'choice' | 'object' | 'any'

interface Rule {
  readonly kind: Kind
  readonly least?: number
  readonly most?: number
  /** Below this it can only be seconds. */
  readonly leastMs?: number
  /** Numbers that everybody writes when seconds are meant. */
  readonly seconds?: readonly number[]
  readonly oneOf?: readonly string[]
}

const RULES: Record<keyof PoolOptions, Rule> = {
  url: { kind: 'text' },
  host: { kind: 'text' },
  port: { kind: 'count', least: 1, most: 65_535 },
  socketPath: { kind: 'text' },
  user: { kind: 'text' },
  password: { kind: 'any' },
  database: { kind: 'text' },
  charset: { kind: 'text' },
  timezone: { kind: 'text' },
  ssl: { kind: 'any' },
  max: { kind: 'count', least: 1 },
  minIdle: { kind: 'count', least: 0 },
  acquireTimeoutMs: { kind: 'ms', leastMs: 50 },
  connectTimeoutMs: { kind: 'ms', leastMs: 50 },
  queryTimeoutMs: { kind: 'ms', leastMs: 50 },
  queueLimit: { kind: 'count', least: 1 },
  idleTimeoutMs: { kind: 'ms', leastMs: 100 },
  maxLifetimeMs: { kind: 'ms', leastMs: 100, seconds: [1_800, 3_600, 7_200, 28_800] },
  trustMs: { kind: 'ms' },
  pingAfterMs: { kind: 'ms' },
  leakAfterMs: { kind: 'ms', leastMs: 50 },
  onLeak: { kind: 'choice', oneOf: ['warn', 'reclaim'] },
  lanes: { kind: 'choice', oneOf: ['reads', 'off'] },
  driver: { kind: 'any' },
  driverOptions: { kind: 'object' },
  sessionInit: { kind: 'any' },
  name: { kind: 'text' },
  budget: { kind: 'object' },
}

/** What other pools call it. */
const ELSEWHERE: Record<string, keyof PoolOptions> = {
  acquireTimeout: 'acquireTimeoutMs',
  acquireTimeoutMillis: 'acquireTimeoutMs',
  connectionLimit: 'max',
  connectionTimeout: 'acquireTimeoutMs',
  connectTimeout: 'connectTimeoutMs',
  db: 'database',
  idleTimeout: 'idleTimeoutMs',
  idleTimeoutMillis: 'idleTimeoutMs',
  initSql: 'sessionInit',
  leakDetectionTimeout: 'leakAfterMs',
  leakDetectionThreshold: 'leakAfterMs',
  max_connections: 'max',
  maximumPoolSize: 'max',
  maxLifetime: 'maxLifetimeMs',
  min: 'minIdle',
  minimumIdle: 'minIdle',
  pass: 'password',
  pool_recycle: 'maxLifetimeMs',
  pool_size: 'max',
  poolSize: 'max',
  queryTimeout: 'queryTimeoutMs',
  socket: 'socketPath',
  tls: 'ssl',
  uri: 'url',
  username: 'user',
}

export function invalid(sentence: string, cause?: unknown): HoldfastError {
  return new HoldfastError('OPTION_INVALID', sentence, cause === undefined ? {} : { cause })
}

/** @throws HoldfastError OPTION_INVALID, with the fix in its sentence */
export function resolveOptions(first: string | PoolOptions, second?: PoolOptions): ResolvedOptions {
  const given: PoolOptions = typeof first === 'string' ? { url: first, ...second } : first
  if (typeof given !== 'object' || given === null) {
    throw invalid('createPool takes a URL (mysql://user:password@host/database) or an object of options')
  }
  checkAll(given)
  const { url, ...options } = given
  const merged = { ...DEFAULTS, ...(url === undefined ? {} : readUrl(url)), ...withoutUndefined(options) }
  checkAll(merged)
  checkDriverOptions(merged.driverOptions)
  if (merged.minIdle > merged.max) {
    throw invalid(`minIdle (${merged.minIdle}) is more than max (${merged.max}): lower the one or raise the other`)
  }
  return { name: merged.database || 'pool', ...merged }
}

/** For the options of one call: `allowed` are their names. */
export function checkCallOptions(options: object, allowed: readonly string[], method: string): void {
  for (const name of Object.keys(options)) {
    if (!allowed.includes(name)) throw unknownOption(name, allowed, ` of ${method}()`)
  }
  const { timeoutMs, signal } = options as { timeoutMs?: unknown; signal?: unknown }
  if (timeoutMs !== undefined && !(typeof timeoutMs === 'number' && timeoutMs > 0)) {
    throw invalid(`timeoutMs of ${method}() must be a number of milliseconds above 0, not ${show(timeoutMs)}`)
  }
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw invalid(`signal of ${method}() must be an AbortSignal: new AbortController().signal`)
  }
}

function checkAll(options: object): void {
  for (const [name, value] of Object.entries(options)) {
    const rule = Object.hasOwn(RULES, name) ? RULES[name as keyof PoolOptions] : undefined
    if (rule === undefined) throw unknownOption(name, Object.keys(RULES))
    if (value !== undefined) check(name, value, rule)
  }
}

function check(name: string, value: unknown, rule: Rule): void {
  switch (rule.kind) {
    case 'text':
      if (typeof value !== 'string') throw invalid(`${name} must be a string, not ${show(value)}`)
      return
    case 'count':
      checkCount(name, value, rule)
      return
    case 'ms':
      checkMs(name, value, rule)
      return
    case 'choice':
      if (!rule.oneOf?.includes(value as string)) {
        throw invalid(`${name} must be ${rule.oneOf?.map((one) => `'${one}'`).join(' or ')}, not ${show(value)}`)
      }
      return
    case 'object':
      if (typeof value !== 'object' || value === null) throw invalid(`${name} must be an object, not ${show(value)}`)
      return
    case 'any':
      checkByName(name, value)
  }
}

/** What the pool itself does, or has an option for, would be ignored by the driver, or work against the pool. */
function checkDriverOptions(driverOptions: object = {}): void {
  for (const name of Object.keys(driverOptions)) {
    const own = Object.hasOwn(ELSEWHERE, name) ? ELSEWHERE[name] : name
    if (own !== undefined && NOT_THE_DRIVERS.includes(own)) {
      throw invalid(`driverOptions.${name} is not for the driver: use the pool's own option '${own}'`)
    }
    if (name === 'stream') throw invalid('driverOptions.stream cannot be set: the pool brings its own socket')
  }
}

const NOT_THE_DRIVERS: readonly string[] = Object.keys(RULES).filter(
  (name) => !['charset', 'timezone', 'ssl'].includes(name),
)

function checkCount(name: string, value: unknown, { least = 0, most = Infinity }: Rule): void {
  if (Number.isSafeInteger(value) && (value as number) >= least && (value as number) <= most) return
  if (name === 'queueLimit' && value === Infinity) return
  const hint = name === 'queueLimit' ? '; leave it out for 10 000, or write Infinity for no limit' : ''
  const range = most === Infinity ? `of at least ${least}` : `from ${least} to ${most}`
  throw invalid(`${name} must be a whole number ${range}, not ${show(value)}${hint}`)
}

function checkMs(name: string, value: unknown, { leastMs = 0, seconds = [] }: Rule): void {
  if (typeof value !== 'number' || Number.isNaN(value) || value < 0) {
    throw invalid(`${name} must be a number of milliseconds, not ${show(value)}`)
  }
  if (value < leastMs || seconds.includes(value)) {
    throw invalid(
      value === 0
        ? `${name} must be above 0; leave it out for its default`
        : `${name} is in milliseconds: ${value} looks like seconds; write ${(value * 1000).toLocaleString('en').replaceAll(',', '_')} for ${value} s`,
    )
  }
}

function checkByName(name: string, value: unknown): void {
  const type = typeof value
  if (name === 'password' && type !== 'string' && type !== 'function') {
    throw invalid(`password must be a string, or a function that gives one, not ${type}`)
  }
  if (name === 'sessionInit' && type !== 'string' && type !== 'function' && !isTexts(value)) {
    throw invalid('sessionInit must be a statement, an array of statements, or an async function')
  }
  if (name === 'driver' && !isDriver(value) && value !== 'mysql2' && value !== 'mariadb') {
    throw invalid(`driver must be 'mysql2', 'mariadb', or an object with connect(), not ${show(value)}`)
  }
}

function isTexts(value: unknown): boolean {
  return Array.isArray(value) && value.every((one) => typeof one === 'string')
}

function isDriver(value: unknown): value is Driver {
  return typeof value === 'object' && value !== null && typeof (value as Driver).connect === 'function'
}

/** Only the text's form is ever told: it may hold a password. */
function readUrl(text: string): PoolOptions {
  // A / ? or # in the password ends the host's part too early, and what is left of the password looks like something else.
  if (/^[^:/?#]+:\/\/[^/?#]*[/?#].*@/s.test(text)) {
    throw invalid(
      "the URL has an @ behind its host: special characters in user and password must be percent-encoded (encodeURIComponent), as must an @ in a database's name",
    )
  }
  let url: URL
  try {
    url = new URL(text)
  } catch {
    throw invalid(
      'the URL cannot be parsed: it must look like mysql://user:password@host:3306/database, with special characters in user and password percent-encoded (encodeURIComponent)',
    )
  }
  if (url.protocol !== 'mysql:' && url.protocol !== 'mariadb:') {
    throw invalid(`the URL must begin with mysql:// or mariadb://, not ${url.protocol}//`)
  }
  const options: Record<string, unknown> = {}
  const host = url.hostname.replace(/^\[(.*)\]$/, '$1')
  if (host) options['host'] = decoded(host, 'host')
  if (url.port) options['port'] = Number(url.port)
  if (url.username) options['user'] = decoded(url.username, 'user')
  if (url.password) options['password'] = decoded(url.password, 'password')
  if (url.pathname.length > 1) options['database'] = decoded(url.pathname.slice(1), 'database')
  for (const [name, value] of url.searchParams) options[name] = readParameter(name, value)
  return options
}

function readParameter(name: string, value: string): unknown {
  const rule = Object.hasOwn(RULES, name) ? RULES[name as keyof PoolOptions] : undefined
  if (rule === undefined) throw unknownOption(name, Object.keys(RULES), ' in the URL')
  if (rule.kind === 'count' || rule.kind === 'ms') return value.trim() === '' ? NaN : Number(value)
  if (rule.kind === 'object') throw invalid(`${name} cannot be given in the URL: pass it in the options`)
  return name === 'ssl' && (value === 'true' || value === 'false') ? value === 'true' : value
}

function decoded(text: string, part: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw invalid(`the ${part} in the URL is not percent-encoded properly: use encodeURIComponent`)
  }
}

function unknownOption(name: string, known: readonly string[], where = ''): HoldfastError {
  const near = Object.hasOwn(ELSEWHERE, name) ? ELSEWHERE[name] : nearest(name, known)
  const hint =
    near !== undefined && known.includes(near) ? `: did you mean '${near}'?` : `; known are ${known.join(', ')}`
  return invalid(`unknown option '${name}'${where}${hint}`)
}

/** The known name that takes the fewest edits, if it takes few. */
function nearest(name: string, known: readonly string[]): string | undefined {
  let best: string | undefined
  let fewest = Math.max(2, Math.floor(name.length / 3)) + 1
  for (const candidate of known) {
    const edits = distance(name.toLowerCase(), candidate.toLowerCase())
    if (edits < fewest) [best, fewest] = [candidate, edits]
  }
  return best
}

function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const swap = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(swap, (row[j] as number) + 1, (next[j - 1] as number) + 1))
    }
    row = next
  }
  return row[b.length] as number
}

function withoutUndefined<T extends object>(options: T): Partial<T> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Partial<T>
}

function show(value: unknown): string {
  return typeof value === 'string'
    ? `'${value}'`
    : typeof value === 'object' && value !== null
      ? 'an object'
      : String(value)
}
