import { setTimeout as sleep } from 'node:timers/promises'
import { createConnection, type Connection } from 'mysql2/promise'
import { expect } from 'vitest'
import { createPool, HoldfastError, type Pool, type PoolOptions } from '../../src/index.js'
import { availableServers, type Account, type ServerKind, type TestServer } from '../../src/testing/server.js'

export { sleep }

export const DRIVERS = ['mysql2', 'mariadb'] as const
export type DriverName = (typeof DRIVERS)[number]

/** For `describe.each`: every server that is there (or those of `kinds`) with either driver. */
export function eachDriver(
  kinds: readonly ServerKind[] = availableServers(),
): { kind: ServerKind; driver: DriverName }[] {
  const there = availableServers()
  return kinds.filter((kind) => there.includes(kind)).flatMap((kind) => DRIVERS.map((driver) => ({ kind, driver })))
}

/** What `driver` needs for that server beside the account: without TLS mariadb must be allowed to ask MySQL for its key. */
export function optionsFor(server: TestServer, account: Account, driver: DriverName): PoolOptions {
  const needsKey = driver === 'mariadb' && server.flavour === 'mysql'
  return { ...account.config, driver, ...(needsKey ? { driverOptions: { allowPublicKeyRetrieval: true } } : {}) }
}

export interface PoolTest {
  readonly server: TestServer
  readonly account: Account
  readonly driver: DriverName
  readonly options?: PoolOptions
}

/** A pool for the length of a block. Ends in the audit: nothing of it is left, here or on the server. */
export async function withPool<T>(
  { server, account, driver, options }: PoolTest,
  block: (db: Pool) => Promise<T>,
): Promise<T> {
  const db = createPool({ ...optionsFor(server, account, driver), ...options })
  let value: T
  try {
    value = await block(db)
  } catch (error) {
    await db.drain({ timeoutMs: 1 })
    throw error
  }
  await nothingLeft(server, account, db)
  return value
}

/** The audit at the end of a test: the pool drains, its book is empty, and the server has let go of every session. */
export async function nothingLeft(server: TestServer, account: Account, ...pools: readonly Pool[]): Promise<void> {
  for (const db of pools) {
    await db.drain({ timeoutMs: 3_000 })
    expect(placesOf(db), 'a drained pool holds nothing').toEqual({
      held: 0,
      opening: 0,
      idle: 0,
      checking: 0,
      lane: 0,
      leased: 0,
      closing: 0,
      ghost: 0,
      waiting: 0,
    })
  }
  await server.untilNoSessions(account.user)
}

export function placesOf(db: Pool): Record<string, number> {
  const { held, opening, idle, checking, lane, leased, closing, ghost, waiting } = db.stats()
  return { held, opening, idle, checking, lane, leased, closing, ghost, waiting }
}

/** The places of a pool add up, and are within its ceiling. */
export function addsUp(db: Pool): void {
  const { held, opening, idle, checking, lane, leased, closing, ghost, waiting, max } = db.stats()
  const places = [opening, idle, checking, lane, leased, closing, ghost]
  expect(places.reduce((sum, one) => sum + one, 0)).toBe(held)
  expect(Math.min(...places, waiting)).toBeGreaterThanOrEqual(0)
  expect(held).toBeLessThanOrEqual(max)
}

/** Polls until the condition holds; fails with what it last saw. */
export async function until(what: string, condition: () => unknown, withinMs = 5_000): Promise<void> {
  const deadline = performance.now() + withinMs
  for (;;) {
    const seen = await condition()
    if (seen === true) return
    if (performance.now() > deadline)
      throw new Error(`not within ${withinMs} ms: ${what} (last seen: ${JSON.stringify(seen)})`)
    await sleep(10)
  }
}

/** How a promise settled, and after how many milliseconds. */
export async function outcome<T>(
  promise: Promise<T>,
  began: number = performance.now(),
): Promise<{ value?: T; error?: HoldfastError; ms: number }> {
  try {
    const value = await promise
    return { value, ms: performance.now() - began }
  } catch (error) {
    return { error: error as HoldfastError, ms: performance.now() - began }
  }
}

/** How many of each: `ok`, or the errors' code and server's number. */
export function tally(outcomes: readonly { error?: unknown }[]): Record<string, number> {
  const count: Record<string, number> = {}
  for (const { error } of outcomes) {
    const { code, errno, message } = (error ?? {}) as { code?: string; errno?: number; message?: string }
    const key = error === undefined ? 'ok' : (code ?? `${errno ?? ''} ${message ?? ''}`)
    count[key] = (count[key] ?? 0) + 1
  }
  return count
}

/** What went wrong, in words, for an assertion that nothing did. */
export function troubles(outcomes: readonly { error?: unknown }[]): string[] {
  return outcomes.flatMap(({ error }) => (error === undefined ? [] : [(error as Error).message]))
}

/** Runs a task `count` times at once, and tells how each settled. */
export function crowd<T>(
  count: number,
  task: (index: number) => Promise<T>,
): Promise<Awaited<ReturnType<typeof outcome<T>>>[]> {
  return Promise.all(
    Array.from({ length: count }, (_, index) => {
      const began = performance.now()
      return outcome(task(index), began)
    }),
  )
}

/** Work that `workers` do over and over until `stop()`, or until a test that failed leaves it behind. */
export interface Load extends Disposable {
  readonly outcomes: readonly { error?: unknown }[]
  /** Waits for what is under way, and tells how everything settled. */
  stop(): Promise<Record<string, number>>
}

export function keepBusy(workers: number, task: () => Promise<unknown>): Load {
  const outcomes: { error?: unknown }[] = []
  const ended = new AbortController()
  const worker = async (): Promise<void> => {
    while (!ended.signal.aborted) {
      const { error } = await outcome(task())
      outcomes.push(error === undefined ? {} : { error })
      // A pool that refuses at once must not keep the event loop from ever turning.
      if (error !== undefined) await sleep(1)
    }
  }
  const working = Promise.all(Array.from({ length: workers }, worker))
  const stop = async (): Promise<Record<string, number>> => {
    ended.abort()
    await working
    return tally(outcomes)
  }
  return { outcomes, stop, [Symbol.dispose]: () => ended.abort() }
}

/** A session of somebody else: no pool, no Holdfast. */
export async function stranger(account: Account): Promise<Connection> {
  const connection = await createConnection(account.config)
  connection.on('error', () => {})
  return connection
}

/** A counter of the server (`SHOW GLOBAL STATUS`). */
export async function statusOf(server: TestServer, name: string): Promise<number> {
  const [row] = await server.query<{ Value: string }>('SHOW GLOBAL STATUS WHERE Variable_name = ?', [name])
  return Number(row?.Value)
}

/** How late timers were at worst since the call: what the machine, not the pool, adds to a deadline. */
export function watchLag(): { worst(): number } & Disposable {
  let worst = 0
  let at = performance.now()
  const look = (): void => {
    const now = performance.now()
    worst = Math.max(worst, now - at - 5)
    at = now
  }
  const timer = setInterval(look, 5)
  return {
    worst: () => (look(), worst),
    [Symbol.dispose]: () => clearInterval(timer),
  }
}

/** Collects what would have ended the process, or was warned of, from now on. */
export function listenForTrouble(): { readonly seen: string[]; stop(): void } {
  const seen: string[] = []
  const on = (what: string) => (error: unknown) => {
    const { name, message } = error as Error
    seen.push(`${what}: ${name}: ${message}`)
  }
  const listeners = { unhandledRejection: on('rejection'), uncaughtException: on('exception'), warning: on('warning') }
  for (const [event, listener] of Object.entries(listeners)) process.on(event, listener)
  return {
    seen,
    stop: () => {
      for (const [event, listener] of Object.entries(listeners)) process.off(event, listener)
    },
  }
}
