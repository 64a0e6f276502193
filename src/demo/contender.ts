import { setTimeout as sleep } from 'node:timers/promises'
import * as mariadb from 'mariadb'
import * as mysql2 from 'mysql2/promise'
import { createPool, type PoolOptions } from '../index.js'
import type { DriverName, Side } from './outcome.js'

export interface Address {
  readonly host: string
  readonly port: number
  readonly user: string
  readonly password: string
  readonly database: string
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
    acquire: async () => {
      const lease = await pool.acquire()
      return { run: async (sql, values) => (await lease.query(sql, values)).rows, release: () => lease.release() }
    },
    transaction: (block) => pool.transaction((tx) => block(async (sql, values) => (await tx.query(sql, values)).rows)),
    [Symbol.asyncDispose]: () => pool.drain({ timeoutMs: 500 }),
  }
}

function mysql2Pool({ address, max = 10 }: ContenderOptions): Contender {
  const pool = mysql2.createPool({ ...address, connectionLimit: max })
  // A second 'error' of one connection would end the process. Holdfast has such a listener too.
  pool.pool.on('connection', (connection) => connection.on('error', () => {}))
  const acquire = async (): Promise<Transactional> => {
    const connection = await pool.getConnection()
    return {
      run: async (sql, values) => (await connection.query(sql, values))[0],
      begin: () => connection.beginTransaction(),
      commit: () => connection.commit(),
      rollback: () => connection.rollback(),
      release: () => connection.release(),
    }
  }
  const query: Run = async (sql, values) => (await pool.query(sql, values))[0]
  return {
    read: query,
    write: query,
    acquire,
    transaction: (block) => inTransaction(acquire, block),
    [Symbol.asyncDispose]: () => soon(pool.end()),
  }
}

function mariadbPool({ address, max = 10, leakAfterMs = 0 }: ContenderOptions): Contender {
  const pool = mariadb.createPool({ ...address, connectionLimit: max, leakDetectionTimeout: leakAfterMs })
  const acquire = async (): Promise<Transactional> => {
    const connection = await pool.getConnection()
    return {
      run: (sql, values) => connection.query<unknown>(sql, values),
      begin: () => connection.beginTransaction(),
      commit: () => connection.commit(),
      rollback: () => connection.rollback(),
      release: () => void connection.release(),
    }
  }
  const query: Run = (sql, values) => pool.query<unknown>(sql, values)
  return {
    read: query,
    write: query,
    acquire,
    transaction: (block) => inTransaction(acquire, block),
    [Symbol.asyncDispose]: () => soon(pool.end()),
  }
}

interface Transactional extends Held {
  begin(): Promise<void>
  commit(): Promise<void>
  rollback(): Promise<void>
}

/** As the drivers' documentation shows it, and kinder: a ROLLBACK that fails does not hide why it was needed. */
async function inTransaction(
  acquire: () => Promise<Transactional>,
  block: (run: Run) => Promise<void>,
): Promise<void> {
  const connection = await acquire()
  try {
    await connection.begin()
    await block(connection.run)
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
