import { performance } from 'node:perf_hooks'
import type { Readable } from 'node:stream'
import { contest, measure, type Contender } from '../contest.js'
import {
  holdfastPool,
  mariadb,
  mariadbOptions,
  MAX,
  mysql2Callback,
  mysql2Options,
  warm,
  type Setting,
} from '../pools.js'
import type { Table } from '../table.js'

const ROWS = 1_000_000
const QUICK_ROWS = 200_000
const WARM_UP_ROWS = 20_000
const READ_BEFORE_BREAK = 10

interface Source {
  readonly name: string
  /** A session is held for the loop, and given back as the driver's manual says. */
  read(sql: string, rows: (stream: AsyncIterable<unknown>) => Promise<void>): Promise<void>
  query(sql: string): Promise<unknown>
  end(): Promise<void>
}

/** Narrow rows read one by one with `for await`; and what leaving such a loop early costs the next user of the session. */
export async function stream(setting: Setting): Promise<Table[]> {
  const { driver, quick } = setting
  const count = quick ? QUICK_ROWS : ROWS
  const rowsOf = (count: number): string => `SELECT seq AS id, seq % 97 AS n FROM seq_1_to_${count}`
  const rates = await withSources(setting, 1, (sources) => contest(sources.map(reader), 3))
  const [alone, among] = [
    await withSources(setting, 1, (sources) => contest(sources.map(leaver), 3)),
    await withSources(setting, MAX, (sources) => contest(sources.map(leaver), 3)),
  ]
  const breaks = alone.map((standing, at) => ({
    ...standing,
    values: { ...standing.values, amongMs: among[at]?.values['nextMs'] ?? NaN },
    ratios: { ...standing.ratios, amongMs: among[at]?.ratios['nextMs'] ?? NaN },
  }))
  return [
    {
      title: `Stream of ${count.toLocaleString('en').replaceAll(',', ' ')} rows through ${driver}, read by for await`,
      columns: [
        { key: 'perSecond', head: 'rows per s', digits: 0, ratio: true },
        { key: 'cpuUs', head: 'CPU us per row', digits: 2, ratio: true },
      ],
      rows: rates,
      notes: [],
    },
    {
      title: `The same left after ${READ_BEFORE_BREAK} rows: until the loop is left, and until the next query is answered`,
      columns: [
        { key: 'leftMs', head: 'left ms', digits: 2 },
        { key: 'nextMs', head: 'next, pool of 1, ms', digits: 2, ratio: true },
        { key: 'amongMs', head: `next, pool of ${MAX}, ms`, digits: 2, ratio: true },
      ],
      rows: breaks,
      notes: [
        'The drivers read the rest and throw it away; Holdfast drops the session, and ends the statement on the server.',
      ],
    },
  ]

  function reader(source: Source): Contender {
    return {
      name: source.name,
      async round(isWarmUp) {
        const asked = isWarmUp ? WARM_UP_ROWS : count
        let seen = 0
        const { cpuUs, wallUs } = await measure(() =>
          source.read(rowsOf(asked), async (rows) => {
            for await (const _ of rows) seen++
          }),
        )
        if (seen !== asked) throw new Error(`${source.name}: ${seen} rows instead of ${asked}`)
        return { perSecond: (seen / wallUs) * 1e6, cpuUs: cpuUs / seen }
      },
    }
  }

  function leaver(source: Source): Contender {
    return {
      name: source.name,
      async round(isWarmUp) {
        await warm((sql) => source.query(sql))
        let brokeAt = NaN
        await source.read(rowsOf(isWarmUp ? WARM_UP_ROWS : count), async (rows) => {
          let seen = 0
          for await (const _ of rows) {
            if (++seen < READ_BEFORE_BREAK) continue
            brokeAt = performance.now()
            break
          }
        })
        const leftMs = performance.now() - brokeAt
        await source.query('SELECT 1')
        return { leftMs, nextMs: performance.now() - brokeAt }
      },
    }
  }
}

async function withSources<T>(setting: Setting, max: number, task: (sources: Source[]) => Promise<T>): Promise<T> {
  const sources = [
    setting.driver === 'mysql2' ? ownMysql2(setting, max) : ownMariadb(setting, max),
    ofHoldfast(setting, max),
  ]
  const outcome = await task(sources)
  for (const source of sources) await source.end()
  return outcome
}

function ofHoldfast(setting: Setting, max: number): Source {
  const pool = holdfastPool(setting, { max })
  return {
    name: 'Holdfast stream()',
    read: (sql, rows) => rows(pool.stream(sql)),
    query: (sql) => pool.query(sql),
    end: () => pool.drain(),
  }
}

function ownMysql2(setting: Setting, max: number): Source {
  const pool = mysql2Callback.createPool(mysql2Options(setting, max))
  const asPromise = pool.promise()
  return {
    name: 'mysql2 .stream()',
    async read(sql, rows) {
      const connection = await new Promise<mysql2Callback.PoolConnection>((resolve, reject) =>
        pool.getConnection((error, connection) => (error ? reject(error) : resolve(connection))),
      )
      try {
        await rows(connection.query(sql).stream())
      } finally {
        connection.release()
      }
    },
    query: (sql) => asPromise.query(sql),
    end: () => asPromise.end(),
  }
}

function ownMariadb(setting: Setting, max: number): Source {
  const pool = mariadb.createPool(mariadbOptions(setting, max))
  return {
    name: 'mariadb queryStream()',
    async read(sql, rows) {
      const connection = await pool.getConnection()
      const stream = connection.queryStream(sql) as Readable & { close(): void } // its types leave it out
      try {
        await rows(stream)
      } finally {
        stream.close() // without it, a loop that was left early leaves the connection stuck for ever
        await connection.release()
      }
    },
    query: (sql) => pool.query(sql),
    end: () => pool.end(),
  }
}
