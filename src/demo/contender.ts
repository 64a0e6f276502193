import { setTimeout as sleep } from 'node:timers/promises'
import * as mariadb from 'mariadb'
import * as mysql2 from 'mysql2/promise'
import { sslOf } from '../drivers/ssl.js'
import { createPool, type PoolOptions } from '../index.js'
import type { DriverName, Side } from './outcome.js'

export interface Address {
  readonly host: string
  readonly port: number
  readonly user?: string
  readonly password?: string
  readonly database?: string
  readonly ssl?: boolean | string | object
}

export interface ContenderOptions {
  readonly side: Side
  readonly driver: DriverName
  readonly address: Address
  /** Connections at the most. */
  readonly max?: number
  /** Has whoever keeps a connection for longer reported, by pools that can. */
  readonly leakAfterMs?: number
  /** More for Holdfast, of which the driver's pool knows nothing. */
  readonly holdfast?: PoolOptions
}

/** Gives the rows of a statement that has any. */
export type Run = (sql: string, values?: unknown[]) => Promise<unknown>

export interface Held {
  readonly run: Run
  release(): void
}

/** What a program asks of its pool. The same program is run on each, with the options that it has unless told otherwise. */
export interface Contender extends AsyncDisposable {
  /** May be run again: Holdfast is told so (`idempotent`); the other pools have no word for it. */
  read: Run
  write: Run
  /** A read that may take so long, with whatever the pool has for that. */
  readWithin(ms: number, sql: string): Promise<unknown>
  /** Connections that it has opened so far. */
  readonly opened: number
  acquire(): Promise<Held>
  /** BEGIN, block, COMMIT; ROLLBACK when the block throws. */
  transaction(block: (run: Run) => Promise<void>): Promise<void>
}

export function contender(options: ContenderOptions): Contender {
  if (options.side === 'holdfast') return holdfast(options)
  return options.driver === 'mysql2' ? mysql2Pool(options) : mariadbPool(options)
}

function holdfast({ driver, address, max = 10, leakAfterMs, holdfast }: ContenderOptions): Contender {
  const leaks = leakAfterMs === undefined ? {} : { leakAfterMs }
  const pool = createPool({ ...address, driver, max, ...leaks, ...holdfast })
  return {
    read: async (sql, values) => (await pool.query(sql, values, { idempotent: true })).rows,
    write: async (sql, values) => (await pool.query(sql, values)).rows,
    readWithin: (timeoutMs, sql) => pool.query(sql, [], { timeoutMs, idempotent: true }),
    get opened() {
      return pool.stats().total.opened
    },
    acquire: async () => {
      const lease = await pool.acquire()
      return { run: async (sql, values) => (await lease.query(sql, values)).rows, release: () => lease.release() }
    },
    transaction: (block) => pool.transaction((tx) => block(async (sql, values) => (await tx.query(sql, values)).rows)),
    [Symbol.asyncDispose]: () => pool.drain({ timeoutMs: 500 }),
  }
}

function mysql2Pool({ address, max = 10 }: ContenderOptions): Contender {
  const pool = mysql2.createPool({ ...forDriver(address), connectionLimit: max } as mysql2.PoolOptions)
  let opened = 0
  pool.pool.on('connection', (connection) => {
    opened++
    connection.on('error', () => {}) // a second 'error' of one connection would end the process: Holdfast listens, too
  })
  return driversPool(
    pool,
    () => opened,
    (result) => (result as unknown[])[0],
  )
}

function mariadbPool({ address, max = 10, leakAfterMs = 0 }: ContenderOptions): Contender {
  const pool = mariadb.createPool({ ...forDriver(address), connectionLimit: max, leakDetectionTimeout: leakAfterMs })
  let opened = 0
  pool.on('connection', () => opened++)
  return driversPool(
    pool,
    () => opened,
    (rows) => rows,
  )
}

function forDriver({ ssl, ...address }: Address): object {
  const tls = sslOf(ssl)
  return { ...address, ...(tls !== undefined && { ssl: tls }) }
}

/** What mysql2 and mariadb have in common. */
interface DriversPool {
  query(what: string | { sql: string; timeout: number }, values?: unknown[]): Promise<unknown>
  getConnection(): Promise<DriversConnection>
  end(): Promise<void>
}

interface DriversConnection {
  query(sql: string, values?: unknown[]): Promise<unknown>
  beginTransaction(): Promise<void>
  commit(): Promise<void>
  rollback(): Promise<void>
  release(): unknown
}

function driversPool(pool: DriversPool, opened: () => number, rowsIn: (result: unknown) => unknown): Contender {
  const query: Run = async (sql, values) => rowsIn(await pool.query(sql, values))
  const runOn =
    (connection: DriversConnection): Run =>
    async (sql, values) =>
      rowsIn(await connection.query(sql, values))
  return {
    read: query,
    write: query,
    readWithin: (timeout, sql) => pool.query({ sql, timeout }),
    get opened() {
      return opened()
    },
    acquire: async () => {
      const connection = await pool.getConnection()
      return { run: runOn(connection), release: () => void connection.release() }
    },
    transaction: async (block) => {
      const connection = await pool.getConnection()
      await inTransaction(connection, () => block(runOn(connection)))
    },
    [Symbol.asyncDispose]: () => soon(pool.end()),
  }
}

/** As the drivers' documentation shows it, and kinder: a ROLLBACK that fails does not hide why it was needed. */
async function inTransaction(connection: DriversConnection, block: () => Promise<void>): Promise<void> {
  try {
    await connection.beginTransaction()
    await block()
    await connection.commit()
  } catch (error) {
    await connection.rollback().catch(() => {})
    throw error
  } finally {
    connection.release()
  }
}

/** mysql2's `end()` may wait for ever, mariadb's for 10 s. What is left then ends with its server. */
async function soon(ending: Promise<void>): Promise<void> {
  await Promise.race([ending.catch(() => {}), sleep(300)])
}
