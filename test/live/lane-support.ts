import type { Pool, QueryOptions } from '../../src/index.js'
import { sleep } from './support.js'

export const ROWS = 100

/** Rows 1 to ROWS; and views whose text does not say what they do. */
export const SETUP: readonly string[] = [
  'CREATE TABLE {db}.t (id INT PRIMARY KEY, v VARCHAR(40))',
  `INSERT INTO {db}.t VALUES ${Array.from({ length: ROWS }, (_, n) => `(${n + 1}, 'row ${n + 1}')`).join()}`,
]

/** A read of `naps` takes as long as its row says, without using a CPU: 1 to ROWS no time, others `id - ROWS` ms. */
export const NAPS: readonly string[] = [
  ...SETUP,
  'CREATE TABLE {db}.nap (id INT PRIMARY KEY, s DOUBLE)',
  'INSERT INTO {db}.nap SELECT id, 0 FROM {db}.t',
  `INSERT INTO {db}.nap VALUES ${[100, 300, 1_000, 3_000, 30_000].map((ms) => `(${ROWS + ms}, ${ms / 1000})`).join()}`,
  'CREATE VIEW {db}.naps AS SELECT id, SLEEP(s) AS slept FROM {db}.nap',
]

/** What is wrong with the answer; undefined when it is the one that was asked for. */
export type Read = (db: Pool, n: number) => Promise<string | undefined>

/** Row `id` of `t`, with something of the caller's own in it. */
export function pointRead(options?: QueryOptions): Read {
  return async (db, n) => {
    const id = (n % ROWS) + 1
    const { rows } = await db.query('SELECT ? AS token, v FROM t WHERE id = ?', [`mine ${n}`, id], options)
    const wanted = `mine ${n}, row ${id}`
    const got = rows.map((row) => `${String(row.token)}, ${String(row.v)}`).join(' and ')
    return got === wanted ? undefined : `asked for ${wanted}; got ${got}`
  }
}

export async function nap(db: Pool, ms: number, options?: QueryOptions): Promise<number> {
  const id = ms === 0 ? 1 : ROWS + ms
  const { rows } = await db.query('SELECT id, slept FROM naps WHERE id = ?', [id], options)
  if (rows.length !== 1 || rows[0].id !== id) throw new Error(`asked for nap ${id}, got ${JSON.stringify(rows)}`)
  return ms
}

/** `count` reads by `callers` that each wait for one before the next; what was wrong. */
export async function readAll(db: Pool, count: number, callers: number, read: Read): Promise<string[]> {
  const wrong: string[] = []
  let next = 0
  const caller = async (): Promise<void> => {
    while (next < count) {
      const trouble = await read(db, next++).catch(inWords)
      if (trouble !== undefined) wrong.push(trouble)
    }
  }
  await Promise.all(Array.from({ length: callers }, caller))
  return wrong
}

/** Callers that read until they are told to stop, or until a test that failed leaves them behind. */
export interface Readers extends Disposable {
  /** Right answers so far. */
  readonly done: number
  /** Everything else. */
  readonly wrong: readonly string[]
  stop(): Promise<void>
}

export function keepReading(db: Pool, callers: number, read: Read = pointRead()): Readers {
  let running = true
  let next = 0
  let done = 0
  const wrong: string[] = []
  const caller = async (): Promise<void> => {
    while (running) {
      const trouble = await read(db, next++).catch(inWords)
      if (trouble === undefined) done++
      else {
        wrong.push(trouble)
        // A pool that refuses at once must not keep the event loop from ever turning.
        await sleep(5)
      }
    }
  }
  const working = Promise.all(Array.from({ length: callers }, caller))
  return {
    get done() {
      return done
    },
    wrong,
    stop: async () => {
      running = false
      await working
    },
    [Symbol.dispose]: () => void (running = false),
  }
}

/** How many of each sentence: a thousand failures are one fault. */
export function summary(wrong: readonly string[]): Record<string, number> {
  const count: Record<string, number> = {}
  for (const each of wrong) count[each] = (count[each] ?? 0) + 1
  return Object.fromEntries(Object.entries(count).slice(0, 10))
}

function inWords(error: unknown): string {
  const { code, message } = error as { code?: unknown; message?: unknown }
  return `${String(code)}: ${String(message)}`
}
