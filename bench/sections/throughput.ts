import { performance } from 'node:perf_hooks'
import { contest, measure, quantile, type Contender } from '../contest.js'
import { holdfastPool, ITEMS, MAX, ownPool, POINT_READ, warm, type OwnPool, type Setting } from '../pools.js'
import type { Table } from '../table.js'

const CALLERS = [10, 50, 200]
const LASTS_MS = 250
const QUICK_LASTS_MS = 80

/** Point reads by many callers, each asking again when it is answered. */
export async function throughput(setting: Setting): Promise<Table[]> {
  const { driver, quick } = setting
  const own = ownPool(setting)
  const holdfast = holdfastPool(setting)
  await Promise.all([warm((sql) => own.query(sql)), warm((sql) => holdfast.query(sql))])
  const tables: Table[] = []
  for (const callers of CALLERS) {
    const contender = (name: string, query: OwnPool['query']): Contender => ({
      name,
      round: (isWarmUp) =>
        crowd(callers, quick || isWarmUp ? QUICK_LASTS_MS : LASTS_MS, (turn) =>
          query(POINT_READ, [1 + (turn % ITEMS)]),
        ),
    })
    const rows = await contest(
      [
        contender(`${driver} pool.query()`, (sql, values) => own.query(sql, values)),
        contender('Holdfast query()', (sql, values) => holdfast.query(sql, values)),
      ],
      quick ? 3 : 7,
    )
    tables.push({
      title: `Point reads through ${driver}, ${callers} callers on ${MAX} sessions`,
      columns: CROWD_COLUMNS,
      rows,
      notes: [],
    })
  }
  await Promise.all([own.end(), holdfast.drain()])
  return tables
}

export const CROWD_COLUMNS: Table['columns'] = [
  { key: 'perSecond', head: 'per s', digits: 0, ratio: true },
  { key: 'cpuUs', head: 'CPU us', digits: 1, ratio: true },
  { key: 'p50Ms', head: 'p50 ms', digits: 2, ratio: true },
  { key: 'p99Ms', head: 'p99 ms', digits: 2, ratio: true },
]

/** What `callers` get done in some time. The CPU is this process's, for one call. */
export async function crowd(
  callers: number,
  lastsMs: number,
  call: (turn: number, caller: number) => Promise<unknown>,
): Promise<Record<string, number>> {
  const times: number[] = []
  let turn = 0
  const { cpuUs, wallUs } = await measure(async () => {
    const end = performance.now() + lastsMs
    const one = async (caller: number): Promise<void> => {
      for (let now = performance.now(); now < end;) {
        const started = now
        await call(turn++, caller)
        now = performance.now()
        times.push(now - started)
      }
    }
    await Promise.all(Array.from({ length: callers }, (_, caller) => one(caller)))
  })
  const sorted = Float64Array.from(times).sort()
  return {
    perSecond: (times.length / wallUs) * 1e6,
    cpuUs: cpuUs / times.length,
    p50Ms: quantile(sorted, 0.5),
    p99Ms: quantile(sorted, 0.99),
  }
}
