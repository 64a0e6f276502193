import { contest, measureFor, type Contender } from '../contest.js'
import { bareConnection, holdfastPool, ITEMS, ownPool, POINT_READ, type OwnPool, type Setting } from '../pools.js'
import { roundTrips } from '../server-counts.js'
import type { Table } from '../table.js'

const LASTS_MS = 120
const QUICK_LASTS_MS = 60
const COUNTED = 200

type Query = OwnPool['query']

/** A point read by one caller, one after the other. */
export async function query(setting: Setting): Promise<Table[]> {
  const { driver, quick } = setting
  const lastsMs = quick ? QUICK_LASTS_MS : LASTS_MS
  const bare = await bareConnection(setting)
  const own = ownPool(setting)
  const resetting = ownPool(setting, true)
  const holdfast = holdfastPool(setting)
  const lease = await holdfast.acquire()
  const queries: readonly (readonly [string, Query])[] = [
    [`${driver} connection`, (sql, values) => bare.query(sql, values)],
    [`${driver} pool.query()`, (sql, values) => own.query(sql, values)],
    [`${driver} pool, reset at release`, (sql, values) => resetting.query(sql, values)],
    ['Holdfast query()', (sql, values) => holdfast.query(sql, values)],
    ['Holdfast lease.query()', (sql, values) => lease.query(sql, values)],
  ]
  const standings = await contest(
    queries.map(([name, query]): Contender => ({
      name,
      round: () => measureFor(lastsMs, (turn) => read(query, turn)),
    })),
    quick ? 5 : 11,
  )
  const trips: number[] = []
  for (const [, query] of queries) {
    trips.push(
      await roundTrips(setting, COUNTED, async () => {
        for (let turn = 0; turn < COUNTED; turn++) await read(query, turn)
      }),
    )
  }
  lease.release()
  await Promise.all([bare.end(), own.end(), resetting.end(), holdfast.drain()])

  const added = (trips[3] ?? NaN) - (trips[0] ?? NaN)
  return [
    {
      title: `Point read through ${driver}, one caller`,
      columns: [
        { key: 'wallUs', head: 'wall us', digits: 1, ratio: true },
        { key: 'cpuUs', head: 'CPU us', digits: 1, ratio: true },
        { key: 'trips', head: 'round trips', digits: 2 },
      ],
      rows: standings.map((row, at) => ({ ...row, values: { ...row.values, trips: trips[at] ?? NaN } })),
      notes: [
        `Round trips are counted by the server. Holdfast adds ${Math.abs(added) < 0.01 ? 'none' : added.toFixed(2)} to the bare connection's.`,
        'Holdfast resets only what it cannot prove clean; the drivers reset at each release, or never.',
      ],
    },
  ]
}

function read(query: Query, turn: number): Promise<unknown> {
  return query(POINT_READ, [1 + (turn % ITEMS)])
}
