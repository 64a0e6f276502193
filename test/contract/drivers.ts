import { afterAll } from 'vitest'
import type { Permit } from '../../src/budget.js'
import { systemClock } from '../../src/clock.js'
import type { Session } from '../../src/driver.js'
import type { ConnectConfig } from '../../src/drivers/config.js'
import type { DriverName, InstalledDriver } from '../../src/drivers/installed.js'
import { findDriver } from '../../src/drivers/load.js'
import { mariadbDriver } from '../../src/drivers/mariadb.js'
import { mysql2Driver } from '../../src/drivers/mysql2.js'
import {
  availableServers,
  startServer,
  type ServerKind,
  type ServerOptions,
  type TestServer,
} from '../../src/testing/server.js'

export type { DriverName }

export const DRIVERS: readonly DriverName[] = ['mysql2', 'mariadb']

/** Every server with every driver. */
export const PAIRS: { kind: ServerKind; name: DriverName }[] = availableServers().flatMap((kind) =>
  DRIVERS.map((name) => ({ kind, name })),
)

const servers = new Map<string, Promise<TestServer>>()

/** One of its kind for a test file: both drivers are tried on the same servers, each with an account of its own. */
export function sharedServer(kind: ServerKind, options: ServerOptions = {}): Promise<TestServer> {
  const key = `${kind} ${options.tls ?? false}`
  const server = servers.get(key) ?? startServer(kind, options)
  servers.set(key, server)
  return server
}

afterAll(async () => {
  for (const server of servers.values()) await (await server)[Symbol.asyncDispose]()
})

/** Passwords of MySQL 9 travel over plain TCP only if the mariadb driver is allowed to ask for the server's key. */
const driverOptions: Record<DriverName, Record<string, unknown>> = {
  mysql2: {},
  mariadb: { allowPublicKeyRetrieval: true },
}

function withOptions(name: DriverName, config: ConnectConfig): ConnectConfig {
  return { ...config, driverOptions: { ...driverOptions[name], ...config.driverOptions } }
}

function permit(): Permit {
  return { revoked: new AbortController().signal, idle: false, [Symbol.dispose]() {} }
}

export function connect(
  name: DriverName,
  config: ConnectConfig,
  signal: AbortSignal = new AbortController().signal,
): Promise<Session> {
  return findDriver(name)(withOptions(name, config)).connect(permit(), signal)
}

/** With a release of the driver, or with something like it. */
export function connectWith(name: DriverName, config: ConnectConfig, installed: InstalledDriver): Promise<Session> {
  const makeDriver = name === 'mysql2' ? mysql2Driver : mariadbDriver
  return makeDriver(withOptions(name, config), systemClock, installed).connect(permit(), new AbortController().signal)
}

/** Collects what must never happen while it listens. */
export class Watch {
  readonly #seen: unknown[] = []
  readonly #events = ['uncaughtException', 'unhandledRejection', 'warning'] as const
  readonly #consoles = ['error', 'warn', 'log'] as const
  readonly #originals = this.#consoles.map((name) => console[name])
  readonly #note = (what: unknown): void => void this.#seen.push(what)

  constructor() {
    for (const event of this.#events) process.on(event, this.#note)
    for (const name of this.#consoles) console[name] = (...args: unknown[]) => this.#note(args)
  }

  /** Two turns of the loop later, so that what floats has come up. */
  async stop(): Promise<unknown[]> {
    for (let turn = 0; turn < 2; turn++) await new Promise(setImmediate)
    for (const event of this.#events) process.off(event, this.#note)
    this.#consoles.forEach((name, index) => (console[name] = this.#originals[index] as typeof console.log))
    return this.#seen
  }
}

/** Until the server shows the session at work. */
export async function untilBusy(server: TestServer, id: number): Promise<void> {
  for (;;) {
    const rows = await server.query('SELECT 1 FROM information_schema.PROCESSLIST WHERE ID = ? AND COMMAND <> ?', [
      id,
      'Sleep',
    ])
    if (rows.length > 0) return
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}
