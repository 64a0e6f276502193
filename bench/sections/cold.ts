import { performance } from 'node:perf_hooks'
import { contest, measure, type Contender } from '../contest.js'
import { holdfastPool, ownPool, type Setting } from '../pools.js'
import type { Table } from '../table.js'

/** From createPool() to the answer of the first query, and the end of the pool. */
export async function cold(setting: Setting): Promise<Table[]> {
  const { driver, quick } = setting
  const contender = (
    name: string,
    open: () => { query(sql: string): Promise<unknown>; end(): Promise<void> },
  ): Contender => ({
    name,
    async round() {
      let answeredMs = NaN
      let endedMs = NaN
      const { cpuUs } = await measure(async () => {
        const started = performance.now()
        const pool = open()
        await pool.query('SELECT 1')
        answeredMs = performance.now() - started
        await pool.end()
        endedMs = performance.now() - started - answeredMs
      })
      return { answeredMs, endedMs, cpuMs: cpuUs / 1000 }
    },
  })
  const rows = await contest(
    [
      contender(`${driver} pool`, () => ownPool(setting)),
      contender('Holdfast', () => {
        const pool = holdfastPool(setting)
        return { query: (sql) => pool.query(sql), end: () => pool.drain() }
      }),
    ],
    quick ? 9 : 41,
  )
  return [
    {
      title: `First query on a cold pool of ${driver}`,
      columns: [
        { key: 'answeredMs', head: 'answered ms', digits: 2, ratio: true },
        { key: 'endedMs', head: 'closed ms', digits: 2 },
        { key: 'cpuMs', head: 'CPU ms', digits: 2, ratio: true },
      ],
      rows,
      notes: [
        "Not equal: Holdfast asks each new session for the server's limits (one round trip more), and resolves when the server has let go of it.",
        ...(driver === 'mariadb' ? ['As it ships, mariadb opens all 10 connections at once, whoever asks.'] : []),
      ],
    },
  ]
}
