import { performance } from 'node:perf_hooks'
import { measure, median, ratio, standings, takeTurns, type Contender, type Sample } from '../contest.js'
import { bareConnection, type Setting } from '../pools.js'
import { target, type Table } from '../table.js'
import { better, eachOfOurs } from './compare.js'
import { CALLERS } from './crowds.js'
import { race, type Runner } from './effort.js'
import { load, quantiles, type Group } from './load.js'
import { DOZE, endAll, idOf, openReaders, readOne, READINGS, SLOW_MS, type Reader } from './readers.js'

const MAX = 3
const SLOW_CALLERS = 2
const LASTS_MS = 450
const QUICK_LASTS_MS = 350
const RARE_ONE_IN = 100
const RARE_COUNT = 800
const RARE_QUICK_COUNT = 400

type Call = (reader: Reader, turn: number) => Promise<void>

/** Two of the callers ask for what takes 200 ms, and nothing in its text says so. */
export function withDozers(setting: Setting): Promise<Table> {
  return mixed(setting, `${SLOW_CALLERS} of them ask a view that sleeps ${SLOW_MS} ms`, doze, [
    'The text of the slow read may go on a lane, and it takes no CPU.',
  ])
}

/** The same, and the text says so. */
export function withSleepers(setting: Setting): Promise<Table> {
  const nap: Call = async (reader) => {
    const rows = reader.rows(await reader.query(`SELECT SLEEP(${SLOW_MS / 1000}) slept`, []))
    if (Number(rows[0]?.['slept']) !== 0) throw new Error(`${reader.name}: a sleep was cut short`)
  }
  return mixed(setting, `${SLOW_CALLERS} of them SELECT SLEEP(${SLOW_MS / 1000})`, nap, [
    'A read that waits by its text has a session of its own.',
  ])
}

/** The same, with a read that takes a core of the server's for so long. */
export async function withJoiners(setting: Setting): Promise<Table> {
  const { width, tookMs, sum } = await calibrate(setting)
  const join: Call = async (reader) => {
    const rows = reader.rows(await reader.query(JOIN, [width]))
    if (Number(rows[0]?.['total']) !== sum) throw new Error(`${reader.name}: another sum`)
  }
  return mixed(setting, `${SLOW_CALLERS} of them join ${width} by ${READINGS} rows`, join, [
    `The join takes ${tookMs.toFixed(0)} ms on the idle server, and a core of the machine.`,
  ])
}

/** Each hundredth read takes 200 ms: so many that they are the limit, and not the quick ones. */
export async function withRareDozes(setting: Setting): Promise<Table> {
  const readers = await openReaders(setting, { max: MAX })
  const count = setting.quick ? RARE_QUICK_COUNT : RARE_COUNT
  const contender = (reader: Reader): Contender => ({
    name: reader.name,
    round: (isWarmUp) => readAll(reader, isWarmUp ? 200 : count),
  })
  const samples = await takeTurns(readers.map(contender), setting.quick ? 1 : 3)
  const first = better(samples, readers, 'perSecond', 'most')
  await endAll(readers)
  const most = (MAX / SLOW_MS) * 1000 * 100
  return {
    title: `${count} point reads, ${CALLERS} callers on ${MAX} sessions, each hundredth read sleeps ${SLOW_MS} ms: ${setting.server} on loopback`,
    columns: [
      { key: 'perSecond', head: 'reads/s', digits: 0, ratio: true },
      { key: 'p50Ms', head: 'quick p50 ms', digits: 2 },
      { key: 'p99Ms', head: 'p99 ms', digits: 2, ratio: true },
      { key: 'slow50Ms', head: 'slow p50 ms', digits: 0 },
    ],
    rows: standings(samples, first),
    notes: [
      `No target: here the sessions are the limit. ${MAX} of them do ${most / 100} slow reads a second at the most, and so ${most} reads in all, whoever lends them. Holdfast leaves one of them to the quick reads as long as there are any: ${(most * (MAX - 1)) / MAX}.`,
    ],
  }
}

/** As many reads as that, and not one more: of callers who all end up behind slow reads, there would be no end. */
async function readAll(reader: Reader, count: number): Promise<Sample> {
  const quick: number[] = []
  const slow: number[] = []
  let next = 0
  const one = async (): Promise<void> => {
    while (next < count) {
      const turn = next++
      const isSlow = turn % RARE_ONE_IN === RARE_ONE_IN / 2
      const asked = performance.now()
      await (isSlow ? doze(reader, turn) : readOne(reader, turn))
      ;(isSlow ? slow : quick).push(performance.now() - asked)
    }
  }
  const { wallUs } = await measure(() => Promise.all(Array.from({ length: CALLERS }, one)))
  return {
    perSecond: (count / wallUs) * 1e6,
    ...quantiles(Float64Array.from(quick).sort()),
    slow50Ms: median(slow),
  }
}

const COLUMNS: Table['columns'] = [
  { key: 'perSecond', head: 'quick/s', digits: 0, ratio: true },
  { key: 'slowPerSecond', head: 'slow/s', digits: 1 },
  { key: 'cpuUs', head: 'CPU us', digits: 1, ratio: true },
  { key: 'p50Ms', head: 'p50 ms', digits: 2 },
  { key: 'p99Ms', head: 'p99 ms', digits: 2, ratio: true },
]

async function mixed(setting: Setting, what: string, slowly: Call, notes: readonly string[]): Promise<Table> {
  const readers = await openReaders(setting, { max: MAX })
  const runner = (reader: Reader): Runner => ({
    name: reader.name,
    async run(lastsMs) {
      const groups: Record<'quick' | 'slow', Group> = {
        slow: { callers: SLOW_CALLERS, call: (turn) => slowly(reader, turn) },
        quick: { callers: CALLERS - SLOW_CALLERS, call: (turn) => readOne(reader, turn) },
      }
      const { done, cpuUs } = await load(groups, lastsMs)
      return {
        perSecond: done.quick.perSecond,
        slowPerSecond: done.slow.perSecond,
        cpuUs,
        ...quantiles(done.quick.times),
      }
    },
  })
  const samples = await race(setting, readers.map(runner), LASTS_MS, QUICK_LASTS_MS)
  const first = better(samples, readers, 'perSecond', 'most')
  const calmest = better(samples, readers, 'p99Ms', 'least')
  await endAll(readers)
  return {
    title: `Point reads, ${CALLERS} callers on ${MAX} sessions, ${what}: ${setting.server} on loopback`,
    columns: COLUMNS,
    rows: standings(samples, first),
    targets: eachOfOurs(readers, (name) => [
      target(`${name}: quick reads/s to the ${first}'s`, ratio(samples, name, first, 'perSecond'), 'at least', 5),
      target(`${name}: their p99 to the ${calmest}'s`, ratio(samples, name, calmest, 'p99Ms'), 'at most', 1),
    ]),
    notes,
  }
}

async function doze(reader: Reader, turn: number): Promise<void> {
  const id = idOf(turn)
  const rows = reader.rows(await reader.query(DOZE, [id]))
  if (rows[0]?.['id'] !== id || Number(rows[0]['slept']) !== 0) throw new Error(`${reader.name}: no doze for ${id}`)
}

const JOIN = 'SELECT SUM(MOD(a.id * b.id, 7)) total FROM reading a, reading b WHERE a.id <= ?'

interface Calibration {
  readonly width: number
  readonly tookMs: number
  readonly sum: number
}

/** Of how many rows the join must be to take 200 ms here and now. */
async function calibrate(setting: Setting): Promise<Calibration> {
  const connection = await bareConnection({ ...setting, driver: 'mariadb' })
  const timed = async (width: number): Promise<Calibration> => {
    const times: number[] = []
    let sum = NaN
    for (let i = 0; i < 3; i++) {
      const asked = performance.now()
      const rows = (await connection.query(JOIN, [width])) as { total: unknown }[]
      times.push(performance.now() - asked)
      sum = Number(rows[0]?.total)
    }
    return { width, tookMs: median(times), sum }
  }
  const some = await timed(50)
  const found = await timed(Math.max(1, Math.round((some.width * SLOW_MS) / some.tookMs)))
  await connection.end()
  return found
}
