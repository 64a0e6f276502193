import * as mariadb from 'mariadb'
import * as mariadbCallback from 'mariadb/callback'
import mysql2Callback from 'mysql2'
import mysql2 from 'mysql2/promise'
import { createPool, type Pool } from '../src/index.js'
import type { PoolOptions } from '../src/pool/options.js'

export type DriverName = 'mysql2' | 'mariadb'

/** Where a section's child process finds the server, and how much it may take. */
export interface Setting {
  readonly host: string
  readonly port: number
  readonly user: string
  readonly password: string
  readonly database: string
  readonly driver: DriverName
  /** For a section that has them all side by side. */
  readonly drivers: readonly DriverName[]
  /** Flavour and version. */
  readonly server: string
  readonly quick: boolean
}

/** How many sessions every pool may hold. */
export const MAX = 10

export const ITEMS = 1000
export const POINT_READ = 'SELECT id, name, total FROM item WHERE id = ?'

// What Holdfast gives the drivers, so that rows are made the same way on both sides.
const MYSQL2_AS_OURS = { supportBigNumbers: true } as const
const MARIADB_AS_OURS = { checkDuplicate: false, bitOneIsBoolean: false, logParam: false } as const

// Without TLS it cannot log in to MySQL otherwise.
const MARIADB_ON_MYSQL = { allowPublicKeyRetrieval: true } as const

export function holdfastPool(setting: Setting, options: PoolOptions = {}): Pool {
  const { host, port, user, password, database, driver } = setting
  return createPool({
    host,
    port,
    user,
    password,
    database,
    driver,
    max: MAX,
    ...(driver === 'mariadb' && { driverOptions: MARIADB_ON_MYSQL }),
    ...options,
  })
}

export function mysql2Options(setting: Setting, max: number = MAX): mysql2Callback.PoolOptions {
  const { host, port, user, password, database } = setting
  return { host, port, user, password, database, connectionLimit: max, ...MYSQL2_AS_OURS }
}

export function mariadbOptions(setting: Setting, max: number = MAX): mariadb.PoolConfig {
  const { host, port, user, password, database } = setting
  return { host, port, user, password, database, connectionLimit: max, ...MARIADB_AS_OURS, ...MARIADB_ON_MYSQL }
}

/** A driver's own pool behind the few verbs that the sections time. Each is as direct as the driver allows. */
export interface OwnPool {
  query(sql: string, values?: unknown[]): Promise<unknown>
  /** BEGIN, the statement, COMMIT; ROLLBACK when one of them fails. */
  transact(sql: string, values: unknown[]): Promise<void>
  end(): Promise<void>
}

/** `reset`: as clean as Holdfast's sessions, by COM_RESET_CONNECTION at each release, which the driver offers. */
export function ownPool(setting: Setting, reset = false): OwnPool {
  return setting.driver === 'mysql2' ? ownMysql2(setting, reset) : ownMariadb(setting, reset)
}

/** What a transaction by hand needs of a connection, the same with both drivers. */
interface Transacting {
  beginTransaction(): Promise<unknown>
  query(sql: string, values?: unknown[]): Promise<unknown>
  commit(): Promise<unknown>
  rollback(): Promise<unknown>
  release(): unknown
}

/** One statement in a transaction, as the drivers' manuals have it; gives the connection back. */
export async function transactOn(
  connection: Transacting,
  sql: string,
  values: unknown[] | undefined,
  begun?: () => void,
): Promise<void> {
  try {
    await connection.beginTransaction()
    begun?.()
    await connection.query(sql, values)
    await connection.commit()
  } catch (error) {
    await connection.rollback()
    throw error
  } finally {
    await connection.release()
  }
}

function ownMysql2(setting: Setting, reset: boolean): OwnPool {
  const pool = mysql2.createPool({ ...mysql2Options(setting), resetOnRelease: reset })
  return {
    query: (sql, values) => pool.query(sql, values),
    transact: async (sql, values) => transactOn(await pool.getConnection(), sql, values),
    end: () => pool.end(),
  }
}

function ownMariadb(setting: Setting, reset: boolean): OwnPool {
  const pool = mariadb.createPool({ ...mariadbOptions(setting), resetAfterUse: reset })
  return {
    // Its pool.query() never resets: a reset takes the long way.
    query: reset ? (sql, values) => queryAndReset(pool, sql, values) : (sql, values) => pool.query(sql, values),
    transact: async (sql, values) => transactOn(await pool.getConnection(), sql, values),
    end: () => pool.end(),
  }
}

async function queryAndReset(pool: mariadb.Pool, sql: string, values: unknown[] | undefined): Promise<unknown> {
  const connection = await pool.getConnection()
  try {
    return await connection.query(sql, values)
  } finally {
    await connection.release()
  }
}

/** One connection without a pool. */
export async function bareConnection(setting: Setting): Promise<Pick<OwnPool, 'query' | 'end'>> {
  const { host, port, user, password, database } = setting
  const options = { host, port, user, password, database }
  if (setting.driver === 'mysql2') {
    const connection = await mysql2.createConnection({ ...options, ...MYSQL2_AS_OURS })
    return { query: (sql, values) => connection.query(sql, values), end: () => connection.end() }
  }
  const connection = await mariadb.createConnection({ ...options, ...MARIADB_AS_OURS, ...MARIADB_ON_MYSQL })
  return { query: (sql, values) => connection.query(sql, values), end: () => connection.end() }
}

/** Opens all the sessions that a pool may hold. */
export async function warm(query: (sql: string) => Promise<unknown>): Promise<void> {
  await Promise.all(Array.from({ length: MAX }, () => query('SELECT SLEEP(0.02)')))
}

export { mariadb, mariadbCallback, mysql2, mysql2Callback }
