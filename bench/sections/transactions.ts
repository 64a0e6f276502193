import { contest, type Contender } from '../contest.js'
import { holdfastPool, MAX, ownPool, warm, type OwnPool, type Setting } from '../pools.js'
import { roundTrips } from '../server-counts.js'
import type { Table } from '../table.js'
import { crowd, CROWD_COLUMNS } from './throughput.js'

const UPDATE = 'UPDATE counter SET n = n + 1 WHERE id = ?'
const LASTS_MS = 250
const QUICK_LASTS_MS = 120
const COUNTED = 100

/** BEGIN, UPDATE, COMMIT; each caller on a row of its own, so that nobody waits for a lock. */
export async function transactions(setting: Setting): Promise<Table[]> {
  const { driver, quick } = setting
  const own = ownPool(setting)
  const resetting = ownPool(setting, true)
  const holdfast = holdfastPool(setting)
  await Promise.all([own, resetting, holdfast].map((pool) => warm((sql) => pool.query(sql))))
  const contender = async (name: string, transact: OwnPool['transact']): Promise<Contender> => {
    const trips = await roundTrips(setting, COUNTED, async () => {
      for (let i = 0; i < COUNTED; i++) await transact(UPDATE, [1])
    })
    return {
      name,
      round: async (isWarmUp) => ({
        ...(await crowd(MAX, quick || isWarmUp ? QUICK_LASTS_MS : LASTS_MS, (_, caller) =>
          transact(UPDATE, [1 + caller]),
        )),
        trips,
      }),
    }
  }
  const contenders = [
    await contender(`${driver} pool`, (sql, values) => own.transact(sql, values)),
    await contender(`${driver} pool, reset`, (sql, values) => resetting.transact(sql, values)),
    await contender('Holdfast transaction()', (sql, values) =>
      holdfast.transaction(async (tx) => void (await tx.query(sql, values))),
    ),
  ]
  const rows = await contest(contenders, quick ? 3 : 7)
  await Promise.all([own.end(), resetting.end(), holdfast.drain()])
  return [
    {
      title: `Transactions (BEGIN, UPDATE, COMMIT) through ${driver}, ${MAX} callers on ${MAX} sessions`,
      columns: [...CROWD_COLUMNS, { key: 'trips', head: 'trips', digits: 1 }],
      rows,
      notes: [
        'Not equal: only Holdfast runs the block again after a deadlock or a loss, and tells a lost COMMIT from a lost transaction.',
      ],
    },
  ]
}
