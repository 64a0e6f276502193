import { measureFor, ratio, standings, takeTurns } from '../contest.js'
import { bareConnection, type DriverName, type Setting } from '../pools.js'
import { target, type Table } from '../table.js'
import { driverReader, endAll, holdfastReader, readOne, warm, type Reader } from './readers.js'

const MAX = 3
const LASTS_MS = 100
const QUICK_LASTS_MS = 80
// A caller alone makes few calls: it takes so long until all that they run through is compiled.
const WARM_UP_MS = 600
const QUICK_WARM_UP_MS = 300
const CONTEST_MS = 6_000
const QUICK_CONTEST_MS = 2_500

/** One caller, one read after the other, and nobody else. */
export async function alone(setting: Setting, driver: DriverName): Promise<Table> {
  const { quick } = setting
  const [pool, holdfast] = [driverReader(setting, driver, { max: MAX }), holdfastReader(setting, driver, { max: MAX })]
  const bare = await bareConnection({ ...setting, driver })
  const connection: Reader = {
    ...pool,
    name: `${driver} connection`,
    query: (sql, values) => bare.query(sql, values),
    end: () => bare.end(),
  }
  const readers = [connection, pool, holdfast]
  await warm(pool, MAX)
  await warm(holdfast, MAX)
  const samples = await takeTurns(
    readers.map((reader) => ({
      name: reader.name,
      round: (isWarmUp) => measureFor(lengthOf(quick, isWarmUp), (turn) => readOne(reader, turn)),
    })),
    quick ? 5 : 9,
    quick ? QUICK_CONTEST_MS : CONTEST_MS,
  )
  await endAll(readers)
  const { name } = holdfast
  const to = connection.name
  return {
    title: `Point reads, one caller, through ${driver}: ${setting.server} on loopback`,
    columns: [
      { key: 'wallUs', head: 'wall us', digits: 1, ratio: true },
      { key: 'cpuUs', head: 'CPU us', digits: 1, ratio: true },
    ],
    rows: standings(samples, to),
    targets: [
      target(`${name}: time to the connection's`, ratio(samples, name, to, 'wallUs'), 'at most', 1.05),
      target(`${name}: CPU to the connection's`, ratio(samples, name, to, 'cpuUs'), 'at most', 1.05),
    ],
    notes: [],
  }
}

function lengthOf(quick: boolean, isWarmUp: boolean): number {
  if (isWarmUp) return quick ? QUICK_WARM_UP_MS : WARM_UP_MS
  return quick ? QUICK_LASTS_MS : LASTS_MS
}
