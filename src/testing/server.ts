import { execFile, execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { createConnection, type Connection } from 'mysql2/promise'
import { freeze, isAlive, thaw, tiedToUs } from './offspring.js'
import { freePort } from './port.js'

export type ServerKind = 'mariadb-10.11' | 'mysql-9.7' | 'mariadb-11.8'

export interface ServerOptions {
  /** More options for the server program, such as `--wait-timeout=2`. */
  readonly flags?: readonly string[]
  /** Speak TLS, with a certificate of its own: see `TestServer.ca`. MySQL offers TLS without being asked, MariaDB does not. */
  readonly tls?: boolean
}

export interface AccountOptions {
  readonly name?: string
  readonly password?: string
  /** An existing database to share with another account; by default each account gets one of its own. */
  readonly database?: string
  readonly host?: string
  readonly maxUserConnections?: number
  readonly maxConnectionsPerHour?: number
  readonly maxQueriesPerHour?: number
}

/**
 * MySQL 9.7 knows nothing but caching_sha2_password: over TCP without TLS the mariadb driver then wants
 * `allowPublicKeyRetrieval: true`.
 */
export interface Account {
  readonly user: string
  readonly password: string
  readonly database: string
  readonly url: string
  readonly config: {
    readonly host: string
    readonly port: number
    readonly user: string
    readonly password: string
    readonly database: string
  }
}

/** A line of the server's process list. */
export interface SessionRow {
  readonly id: number
  readonly user: string
  readonly host: string
  readonly db: string | null
  readonly command: string
  readonly time: number
  readonly state: string | null
  readonly info: string | null
}

interface InstalledServer {
  readonly flavour: 'mariadb' | 'mysql'
  readonly version: string
  readonly command: readonly string[]
  readonly flags: readonly string[]
  readonly template: string
}

/** The servers that `scripts/setup.mjs` could provide, less those that HOLDFAST_SERVERS (a comma list) leaves out. */
export function availableServers(): ServerKind[] {
  const wanted = process.env['HOLDFAST_SERVERS']?.split(',').map((name) => name.trim())
  return [...installedServers().keys()].filter((kind) => wanted?.includes(kind) ?? true)
}

/** A private server with a data directory of its own, ready for queries: 0.1 s for MariaDB, 0.5 s for MySQL. */
export async function startServer(kind: ServerKind, options: ServerOptions = {}): Promise<TestServer> {
  const installed = installedServers().get(kind)
  if (!installed) throw new Error(`${kind} is not available here: run \`node scripts/setup.mjs\``)
  removeLeftovers()
  for (let attempt = 1; ; attempt++) {
    const server = new TestServer(kind, installed, options, await freePort())
    try {
      await server.start()
      return server
    } catch (error) {
      await server[Symbol.asyncDispose]()
      const portWasTaken = error instanceof Error && /Address already in use/i.test(error.message)
      if (!portWasTaken || attempt === 3) throw error
    }
  }
}

export class TestServer implements AsyncDisposable {
  readonly kind: ServerKind
  readonly flavour: 'mariadb' | 'mysql'
  readonly version: string
  readonly host = '127.0.0.1'
  readonly port: number
  readonly socketPath: string
  /** With `tls: true`, the certificate to trust (PEM). It names localhost and 127.0.0.1. */
  readonly ca: string | undefined
  readonly #home: string
  readonly #template: string
  readonly #command: readonly string[]
  #process: ChildProcess | undefined
  #admin: Promise<Connection> | undefined
  #accounts = 0

  /** @internal Call `startServer`. */
  constructor(kind: ServerKind, installed: InstalledServer, options: ServerOptions, port: number) {
    const home = mkdtempSync(join(tmpdir(), `holdfast-${process.pid}-`))
    homes.add(home)
    this.kind = kind
    this.flavour = installed.flavour
    this.version = installed.version
    this.port = port
    this.socketPath = join(home, 'socket')
    this.#home = home
    this.#template = installed.template
    if (options.tls) this.ca = makeCertificate(home)
    this.#command = tiedToUs([
      ...installed.command,
      ...installed.flags,
      `--datadir=${dataOf(home)}`,
      `--tmpdir=${dataOf(home)}`,
      `--pid-file=${join(home, 'pid-file')}`,
      `--socket=${this.socketPath}`,
      `--bind-address=${this.host}`,
      `--port=${port}`,
      ...(options.tls ? certificateFlags(home) : installed.flavour === 'mariadb' ? ['--skip-ssl'] : []),
      ...(options.flags ?? []),
    ])
  }

  get pid(): number {
    const pid = this.#process?.pid
    if (pid === undefined) throw new Error(`${this.kind} is not running`)
    return pid
  }

  /** Starts the server again after `stop`, on the same port and data. */
  async start(): Promise<void> {
    if (this.#process) throw new Error(`${this.kind} runs already`)
    if (!existsSync(dataOf(this.#home))) await copySparse(this.#template, dataOf(this.#home))
    const log = openSync(this.#logFile, 'a')
    const [program, ...args] = this.#command as [string, ...string[]]
    const child = spawn(program, args, { stdio: ['ignore', log, log] })
    closeSync(log)
    await once(child, 'spawn')
    writeFileSync(pidFileOf(this.#home), String(child.pid))
    this.#process = child
    child.once('exit', () => {
      if (this.#process === child) this.#process = undefined
    })
    await this.#untilReady(child)
  }

  /** Resolves when the process is gone. For SIGTERM MySQL takes seconds. */
  async stop(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    this.#admin?.then(
      (connection) => connection.destroy(),
      () => {},
    )
    this.#admin = undefined
    const child = this.#process
    if (!child) return
    const exited = once(child, 'exit')
    child.kill(signal)
    child.kill('SIGCONT') // one that is frozen would never hear of a SIGTERM
    await exited
  }

  async restart(signal: 'SIGTERM' | 'SIGKILL' = 'SIGKILL'): Promise<void> {
    await this.stop(signal)
    await this.start()
  }

  /** The process stands still, its sockets stay open and the kernel goes on acknowledging: what a hung server looks like. */
  freeze(): Promise<void> {
    return freeze(this.pid)
  }

  thaw(): void {
    thaw(this.pid)
  }

  /**
   * As root over the unix socket, on a session of its own that stays open until the server stops. It belongs to no account of a
   * test, but it does take one of `max_connections`.
   */
  async query<Row = Record<string, unknown>>(sql: string, values: readonly unknown[] = []): Promise<Row[]> {
    const admin = await (this.#admin ?? this.#openAdmin())
    const [rows] = await admin.query(sql, [...values])
    return Array.isArray(rows) ? (rows as Row[]) : []
  }

  async createAccount(options: AccountOptions = {}): Promise<Account> {
    const user = options.name ?? `app${++this.#accounts}`
    const password = options.password ?? `secret of ${user}`
    const database = options.database ?? `${user}db`
    const limits = [
      ['MAX_USER_CONNECTIONS', options.maxUserConnections],
      ['MAX_CONNECTIONS_PER_HOUR', options.maxConnectionsPerHour],
      ['MAX_QUERIES_PER_HOUR', options.maxQueriesPerHour],
    ].flatMap(([name, limit]) => (limit === undefined ? [] : [`${name} ${limit}`]))
    const account = [user, options.host ?? '%']
    await this.query(`CREATE DATABASE IF NOT EXISTS ??`, [database])
    await this.query(`CREATE USER ?@? IDENTIFIED BY ? ${limits.length > 0 ? `WITH ${limits.join(' ')}` : ''}`, [
      ...account,
      password,
    ])
    await this.query(`GRANT ALL ON ??.* TO ?@?`, [database, ...account])
    const url = new URL(`mysql://${this.host}:${this.port}/${database}`)
    url.username = user
    url.password = password
    return {
      user,
      password,
      database,
      url: url.href,
      config: { host: this.host, port: this.port, user, password, database },
    }
  }

  /** The sessions of an account, as the server sees them. */
  async sessions(user: string): Promise<SessionRow[]> {
    const columns = 'ID id, USER user, HOST host, DB db, COMMAND command, TIME time, STATE state, INFO info'
    // MySQL cannot read the other one while a text with an emoji runs.
    const threads = this.kind.startsWith('mysql') ? 'performance_schema.processlist' : 'information_schema.PROCESSLIST'
    return await this.query<SessionRow>(`SELECT ${columns} FROM ${threads} WHERE USER = ?`, [user])
  }

  /** The audit at the end of a test: the server has let go of every session of the account. */
  async untilNoSessions(user: string, withinMs = 2000): Promise<void> {
    const deadline = performance.now() + withinMs
    for (;;) {
      const left = await this.sessions(user)
      if (left.length === 0) return
      if (performance.now() > deadline)
        throw new Error(`${user} still has sessions after ${withinMs} ms: ${JSON.stringify(left)}`)
      await sleep(10)
    }
  }

  async kill(id: number): Promise<void> {
    await this.query('KILL ?', [id])
  }

  async set(globalName: string, value: string | number): Promise<void> {
    await this.query('SET GLOBAL ?? = ?', [globalName, value])
  }

  /** What the server has logged so far. */
  log(): string {
    return readFileSync(this.#logFile, 'utf8')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop('SIGKILL')
    remove(this.#home)
  }

  get #logFile(): string {
    return join(this.#home, 'log')
  }

  /** Asks the unix socket: attempts on TCP would show in the server's own counters. */
  async #untilReady(child: ChildProcess): Promise<void> {
    const deadline = performance.now() + 30_000
    while (this.#process === child && performance.now() < deadline) {
      try {
        await this.query('SELECT 1')
        return
      } catch {
        // not yet, or never: the loop's condition knows
      }
      await sleep(5)
    }
    const lines = this.log().trimEnd().split('\n').slice(-8)
    const what =
      this.#process === child
        ? 'did not answer within 30 s'
        : `exited with ${child.signalCode ?? `code ${child.exitCode}`}`
    throw new Error(`${this.kind} ${what} while starting:\n${lines.join('\n')}`)
  }

  #openAdmin(): Promise<Connection> {
    const admin = connectAsRoot(this.socketPath)
    const forget = (): void => {
      if (this.#admin === admin) this.#admin = undefined // the next query opens another
    }
    admin.then((connection) => connection.on('error', forget), forget)
    this.#admin = admin
    return admin
  }
}

async function connectAsRoot(socketPath: string): Promise<Connection> {
  const connection = await createConnection({ socketPath, user: 'root', password: '' })
  await connection.query('SET SESSION wait_timeout = 28800') // whatever the test sets for its own sessions
  return connection
}

async function copySparse(from: string, to: string): Promise<void> {
  await promisify(execFile)('cp', ['-a', '--sparse=always', '--reflink=auto', from, to])
}

/** The cache folder is that of `scripts/setup.mjs`, which cannot share code with us: it runs before anything is built. */
function installedServers(): Map<ServerKind, InstalledServer> {
  const cache =
    process.env['HOLDFAST_CACHE'] || join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'holdfast')
  const file = join(cache, 'servers.json')
  if (!existsSync(file)) return new Map()
  const manifest = JSON.parse(readFileSync(file, 'utf8')) as Record<ServerKind, InstalledServer & { ok: boolean }>
  return new Map(Object.entries(manifest).filter(([, server]) => server.ok) as [ServerKind, InstalledServer][])
}

function makeCertificate(home: string): string {
  const [cert, key] = [join(home, 'cert.pem'), join(home, 'key.pem')]
  const request = 'req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 2 -subj /CN=localhost'.split(
    ' ',
  )
  execFileSync(
    'openssl',
    [...request, '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1', '-keyout', key, '-out', cert],
    {
      stdio: 'pipe',
    },
  )
  return readFileSync(cert, 'utf8')
}

function certificateFlags(home: string): string[] {
  const [cert, key] = [join(home, 'cert.pem'), join(home, 'key.pem')]
  return [`--ssl-ca=${cert}`, `--ssl-cert=${cert}`, `--ssl-key=${key}`]
}

// --- what is left behind --------------------------------------------------------------------------------------------------

const homes = new Set<string>()
process.once('exit', () => {
  for (const home of homes) killAndRemove(home)
})

/** The homes of servers whose test process died without tidying up. The owner's pid is part of a home's name. */
export function removeLeftovers(): void {
  for (const name of readdirSync(tmpdir())) {
    const owner = Number(/^holdfast-(\d+)-/.exec(name)?.[1] ?? process.pid)
    if (isAlive(owner)) continue
    try {
      killAndRemove(join(tmpdir(), name))
    } catch {
      // another user's: his to remove
    }
  }
}

function killAndRemove(home: string): void {
  const pid = existsSync(pidFileOf(home)) ? Number(readFileSync(pidFileOf(home), 'utf8')) : 0
  const cmdline = pid > 0 && existsSync(`/proc/${pid}/cmdline`) ? readFileSync(`/proc/${pid}/cmdline`, 'latin1') : ''
  if (cmdline.includes(`${home}/`)) process.kill(pid, 'SIGKILL') // the pid may be another's by now
  remove(home)
}

function dataOf(home: string): string {
  return join(home, 'data')
}

function pidFileOf(home: string): string {
  return join(home, 'pid')
}

function remove(home: string): void {
  homes.delete(home)
  rmSync(home, { recursive: true, force: true, maxRetries: 3 })
}
