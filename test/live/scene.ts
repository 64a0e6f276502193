import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, expect } from 'vitest'
import { createPool, HoldfastError, type Pool, type PoolOptions, type Stats } from '../../src/index.js'
import { startRelay, type Relay, type RelayOptions } from '../../src/testing/relay.js'
import {
  startServer,
  type Account,
  type AccountOptions,
  type ServerKind,
  type TestServer,
} from '../../src/testing/server.js'
import { eachDriver, type DriverName } from './support.js'

export { DRIVERS, type DriverName } from './support.js'

/** Every server with every driver. */
export const PAIRS: { kind: ServerKind; driver: DriverName }[] = eachDriver()

/** The one that is always there. */
export const MARIADB: ServerKind = 'mariadb-10.11'

const servers = new Map<ServerKind, Promise<TestServer>>()

/** One server of each kind for a test file; it ends with the file. For tests that leave its global settings alone. */
export function sharedServer(kind: ServerKind): Promise<TestServer> {
  let server = servers.get(kind)
  if (server === undefined) servers.set(kind, (server = startServer(kind)))
  return server
}

afterAll(async () => {
  await Promise.all([...servers.values()].map(async (server) => (await server)[Symbol.asyncDispose]()))
})

/** Passwords of MySQL 9 travel over plain TCP only if the mariadb driver is allowed to ask for the server's key. */
const DRIVER_OPTIONS: Record<DriverName, Record<string, unknown>> = {
  mysql2: {},
  mariadb: { allowPublicKeyRetrieval: true },
}

export function openPool(url: string, driver: DriverName, options: PoolOptions = {}): Pool {
  const driverOptions = { ...DRIVER_OPTIONS[driver], ...options.driverOptions }
  return createPool(url, { ...options, driver, driverOptions })
}

export interface SceneOptions extends Omit<PoolOptions, 'driver'> {
  driver?: DriverName
  account?: AccountOptions
  /** The pool's way to the server. */
  relay?: RelayOptions
  /** What is run as root before; `{db}` is the account's database. */
  setup?: string | readonly string[]
}

export interface Scene {
  readonly server: TestServer
  readonly account: Account
  readonly db: Pool
  /** Only there if asked for. */
  readonly relay: Relay
  /** What the pool is told to connect to: for a second one. */
  readonly url: string
  /** As root, in no session of the account; `{db}` is the account's database. */
  readonly root: <Row = Record<string, unknown>>(sql: string, values?: readonly unknown[]) => Promise<Row[]>
  /** Rows of a table of the account, as root sees them. */
  readonly count: (table: string, where?: string) => Promise<number>
}

/** An account, a pool and what happens to it; in the end an audit: everything is home, and the server has let go of all. */
export async function scene(
  server: TestServer,
  options: SceneOptions,
  act: (scene: Scene) => Promise<void>,
): Promise<void> {
  const { driver = 'mysql2', account: accountOptions, relay: relayOptions, setup = [], ...poolOptions } = options
  const account = await server.createAccount(accountOptions)
  for (const sql of [setup].flat()) await server.query(sql.replaceAll('{db}', `\`${account.database}\``))
  const relay = relayOptions && (await startRelay(server, relayOptions))
  const url = relay ? relay.url(account.url) : account.url
  const db = openPool(url, driver, poolOptions)
  try {
    await act({
      server,
      account,
      db,
      url,
      relay: relay as Relay,
      root: (sql, values) => server.query(sql.replaceAll('{db}', `\`${account.database}\``), values),
      count: async (table, where = 'TRUE') => {
        const from = `\`${account.database}\`.\`${table}\``
        const [row] = await server.query<{ n: number }>(`SELECT COUNT(*) n FROM ${from} WHERE ${where}`)
        return Number(row?.n)
      },
    })
    await until(() => allHome(db.stats()), 5_000)
    await db.drain({ timeoutMs: 2_000 })
    const { held, waiting, total } = db.stats()
    expect({ held, waiting, notReleased: total.acquired - total.released }).toEqual({
      held: 0,
      waiting: 0,
      notReleased: 0,
    })
    await server.untilNoSessions(account.user, 5_000)
  } finally {
    await db.drain({ timeoutMs: 200 })
    await relay?.[Symbol.asyncDispose]()
  }
}

function allHome(stats: Stats): void {
  const { held, leased, ghost, waiting, opening, idle, checking, lane, closing } = stats
  expect(opening + idle + checking + lane + leased + closing + ghost).toBe(held)
  expect({ leased, ghost, waiting }).toEqual({ leased: 0, ghost: 0, waiting: 0 })
}

/** What it rejects with. */
// oxlint-disable-next-line typescript/no-explicit-any -- whatever it is, the test says
export async function failure(work: PromiseLike<unknown>): Promise<any> {
  try {
    await work
  } catch (error) {
    return error
  }
  throw new Error('it was expected to fail, and did not')
}

/** It rejects with an error of ours; the error. */
export async function holdfastError(work: PromiseLike<unknown>, code: string): Promise<HoldfastError> {
  const error = await failure(work)
  expect(error, String(error?.stack ?? error)).toBeInstanceOf(HoldfastError)
  expect(error.code, error.message).toBe(code)
  return error
}

/** Until it no longer throws, and gives no false. */
export async function until(look: () => unknown, withinMs = 3_000): Promise<void> {
  const deadline = performance.now() + withinMs
  for (;;) {
    try {
      if ((await look()) !== false) return
      if (performance.now() > deadline) throw new Error(`still not so after ${withinMs} ms: ${String(look)}`)
    } catch (error) {
      if (performance.now() > deadline) throw error
    }
    await sleep(5)
  }
}

/** Rejects when it takes longer: for what must not hang. */
export async function soon<T>(work: PromiseLike<T>, withinMs = 2_000): Promise<T> {
  const timer = new AbortController()
  const late = sleep(withinMs, undefined, { signal: timer.signal }).then(() => {
    throw new Error(`not settled after ${withinMs} ms`)
  })
  late.catch(() => {})
  try {
    return await Promise.race([work, late])
  } finally {
    timer.abort()
  }
}

/** Until the server shows a session of the account at work on a statement that contains the text; its number. */
export async function untilRunning(server: TestServer, user: string, text: string): Promise<number> {
  let id = 0
  await until(async () => {
    const row = (await server.sessions(user)).find((each) => each.command !== 'Sleep' && each.info?.includes(text))
    if (row) id = row.id
    return row !== undefined
  })
  return id
}

/** Until no session of the account is at work on such a statement. */
export async function untilNotRunning(server: TestServer, user: string, text: string, withinMs = 3_000): Promise<void> {
  await until(
    async () => !(await server.sessions(user)).some((row) => row.command !== 'Sleep' && row.info?.includes(text)),
    withinMs,
  )
}
