import type { Pool } from '../../src/index.js'
import { events } from '../../src/events.js'
import {
  holdfastPool,
  mariadb,
  mariadbOptions,
  mysql2,
  mysql2Options,
  transactOn,
  type DriverName,
  type Setting,
} from '../pools.js'

export const READINGS = 10_000
export const READ = 'SELECT * FROM reading WHERE id = ?'
export const UPDATE = 'UPDATE tally SET n = n + 1 WHERE id = ?'
/** Nothing in the text shows that it takes SLOW_MS, and it takes no CPU. */
export const DOZE = 'SELECT * FROM dozing WHERE id = ?'
export const SLOW_MS = 200
/** The rows of `tally`. */
export const TALLIES = 100

type Row = Readonly<Record<string, unknown>>

/** A pool behind the few verbs that are measured. Each is as direct as the pool allows. */
export interface Reader {
  readonly name: string
  readonly isHoldfast: boolean
  query(sql: string, values: unknown[]): Promise<unknown>
  rows(result: unknown): readonly Row[]
  /** START TRANSACTION, the statement, COMMIT. */
  transact(sql: string, values: unknown[], waits: Waits): Promise<void>
  /** A session for the caller alone; what it returns gives it back. */
  take(): Promise<() => unknown>
  end(): Promise<unknown>
}

export interface Waits {
  /** From asking until START TRANSACTION could be sent. */
  readonly lease: number[]
  /** From asking until it was answered. */
  readonly begun: number[]
}

/** `SELECT * FROM reading WHERE id = ?`, with a look at what comes. */
export async function readOne(reader: Reader, turn: number): Promise<void> {
  const id = idOf(turn)
  const rows = reader.rows(await reader.query(READ, [id]))
  if (rows.length !== 1 || rows[0]?.['id'] !== id) throw new Error(`${reader.name}: not the row of ${id}`)
}

/** All over the table, in an order of its own. */
export function idOf(turn: number): number {
  return 1 + ((turn * 7919) % READINGS)
}

export async function makeTables(setting: Setting): Promise<void> {
  const { host, port, user, password, database } = setting
  const connection = await mysql2.createConnection({ host, port, user, password, database })
  try {
    const digits =
      '(SELECT 0 d' + [1, 2, 3, 4, 5, 6, 7, 8, 9].map((digit) => ` UNION ALL SELECT ${digit}`).join('') + ')'
    const columns = 'id INT PRIMARY KEY, name VARCHAR(40) NOT NULL, total DOUBLE NOT NULL'
    await connection.query(`CREATE TABLE reading (${columns})`)
    await connection.query(
      `INSERT INTO reading SELECT n, CONCAT('reading ', n), n * 1.5 FROM
        (SELECT 1 + a.d + 10 * b.d + 100 * c.d + 1000 * e.d n FROM ${digits} a, ${digits} b, ${digits} c, ${digits} e) numbers`,
    )
    await connection.query('CREATE TABLE tally (id INT PRIMARY KEY, n INT NOT NULL)')
    await connection.query('INSERT INTO tally SELECT id, 0 FROM reading WHERE id <= ?', [TALLIES])
    await connection.query(`CREATE VIEW dozing AS SELECT id, total, SLEEP(${SLOW_MS / 1000}) slept FROM reading`)
  } finally {
    await connection.end()
  }
}

export interface ReaderOptions {
  readonly max: number
  /** How long one may wait, and how many may. */
  readonly patient?: boolean
}

const PATIENCE_MS = 120_000

export function driverReader(setting: Setting, driver: DriverName, { max, patient }: ReaderOptions): Reader {
  const name = `${driver} pool`
  if (driver === 'mysql2') {
    const pool = mysql2.createPool(mysql2Options(setting, max))
    return {
      name,
      isHoldfast: false,
      query: (sql, values) => pool.query(sql, values),
      rows: (result) => (result as Row[][])[0] ?? [],
      async transact(sql, values, waits) {
        const asked = performance.now()
        const connection = await pool.getConnection()
        waits.lease.push(performance.now() - asked)
        await transactOn(connection, sql, values, () => void waits.begun.push(performance.now() - asked))
      },
      async take() {
        const connection = await pool.getConnection()
        return () => connection.release()
      },
      end: () => pool.end(),
    }
  }
  const pool = mariadb.createPool({
    ...mariadbOptions(setting, max),
    ...(patient && { acquireTimeout: PATIENCE_MS }),
  })
  return {
    name,
    isHoldfast: false,
    query: (sql, values) => pool.query(sql, values),
    rows: (result) => result as Row[],
    async transact(sql, values, waits) {
      const asked = performance.now()
      const connection = await pool.getConnection()
      waits.lease.push(performance.now() - asked)
      await transactOn(connection, sql, values, () => void waits.begun.push(performance.now() - asked))
    },
    async take() {
      const connection = await pool.getConnection()
      return () => connection.release()
    },
    end: () => pool.end(),
  }
}

export function holdfastReader(setting: Setting, driver: DriverName, { max, patient }: ReaderOptions): Reader {
  const label = `lanes-${driver}-${max}`
  const pool: Pool = holdfastPool(
    { ...setting, driver },
    { max, name: label, ...(patient && { queueLimit: 1_000_000, acquireTimeoutMs: PATIENCE_MS }) },
  )
  let waits: Waits | undefined
  const onAcquired = (message: unknown): void => {
    const { pool: name, waitedMs } = message as { pool: string; waitedMs: number }
    if (name === label) waits?.lease.push(waitedMs)
  }
  return {
    name: `Holdfast on ${driver}`,
    isHoldfast: true,
    query: (sql, values) => pool.query(sql, values),
    rows: (result) => (result as { rows: Row[] }).rows,
    async transact(sql, values, theirs) {
      if (waits !== theirs) {
        waits = theirs
        events.acquired.unsubscribe(onAcquired)
        events.acquired.subscribe(onAcquired)
      }
      const asked = performance.now()
      await pool.transaction(async (tx) => {
        theirs.begun.push(performance.now() - asked)
        await tx.query(sql, values)
      })
    },
    async take() {
      const lease = await pool.acquire()
      return () => lease.release()
    },
    async end() {
      events.acquired.unsubscribe(onAcquired)
      await pool.drain()
    },
  }
}

/** The pools of both drivers, and Holdfast on those that are asked for: all with as many sessions, and those open. */
export async function openReaders(setting: Setting, options: ReaderOptions): Promise<Reader[]> {
  const readers = [
    driverReader(setting, 'mysql2', options),
    driverReader(setting, 'mariadb', options),
    ...setting.drivers.map((driver) => holdfastReader(setting, driver, options)),
  ]
  for (const reader of readers) await warm(reader, options.max)
  return readers
}

export async function warm(reader: Reader, max: number): Promise<void> {
  await Promise.all(Array.from({ length: max }, () => reader.query('SELECT SLEEP(0.03)', [])))
  for (let turn = 0; turn < 50; turn++) await readOne(reader, turn)
}

export async function endAll(readers: readonly Reader[]): Promise<void> {
  await Promise.all(readers.map((reader) => reader.end()))
}
