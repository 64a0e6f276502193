import { setTimeout as sleep } from 'node:timers/promises'
import { measureFor, ratio, standings, type Sample } from '../contest.js'
import { bareConnection, type Setting } from '../pools.js'
import { startProcess } from '../../src/testing/process.js'
import { target, type Table, type Target } from '../table.js'
import { openSockets, type BareSockets } from './bare-socket.js'
import { better, eachOfOurs } from './compare.js'
import { race, type Runner } from './effort.js'
import { load, quantiles } from './load.js'
import { endAll, holdfastReader, openReaders, READ, readOne, warm, type Reader } from './readers.js'

export const CALLERS = 200

const LOOPBACK_MS = 300
const QUICK_LOOPBACK_MS = 180
// A driver's pool needs some 180 ms to have served all callers once.
const RELAY_MS = 450
const QUICK_RELAY_MS = 250
const BARE = 'bare socket'

const COLUMNS: Table['columns'] = [
  { key: 'perSecond', head: 'reads/s', digits: 0, ratio: true },
  { key: 'cpuUs', head: 'CPU us', digits: 1, ratio: true },
  { key: 'p50Ms', head: 'p50 ms', digits: 2 },
  { key: 'p99Ms', head: 'p99 ms', digits: 2, ratio: true },
]

/** Point reads by a crowd, on a server that is near. */
export async function onLoopback(setting: Setting, max: number): Promise<Table> {
  const [readers, bare] = await Promise.all([openReaders(setting, { max }), openSockets(setting, max)])
  const samples = await race(setting, runners(readers, bare), LOOPBACK_MS, QUICK_LOOPBACK_MS)
  const first = better(samples, readers, 'perSecond', 'most')
  await close(readers, bare)
  return {
    title: `Point reads, ${CALLERS} callers on ${sessions(max)}: ${setting.server} on loopback`,
    columns: COLUMNS,
    rows: standings(samples, first),
    targets: eachOfOurs(readers, (name) => [
      target(`${name}: reads/s to the ${first}'s`, ratio(samples, name, first, 'perSecond'), 'at least', 2),
      target(`${name}: CPU per read to the ${first}'s`, ratio(samples, name, first, 'cpuUs'), 'at most', 0.5),
      target(`${name}: reads/s to the bare socket's`, ratio(samples, name, BARE, 'perSecond'), 'at least', 0.75),
    ]),
    notes: [BARE_NOTE],
  }
}

/** One session for all, beside three. */
export async function onOneSession(setting: Setting): Promise<Table> {
  const [readers, bare] = await Promise.all([openReaders(setting, { max: 1 }), openSockets(setting, 1)])
  const three = setting.drivers.map((driver) => {
    const reader = holdfastReader(setting, driver, { max: 3 })
    return { ...reader, name: `${reader.name}, 3 sessions` }
  })
  for (const reader of three) await warm(reader, 3)
  const samples = await race(setting, runners([...readers, ...three], bare), LOOPBACK_MS, QUICK_LOOPBACK_MS)
  const first = better(samples, readers, 'perSecond', 'most')
  await close([...readers, ...three], bare)
  return {
    title: `Point reads, ${CALLERS} callers on 1 session: ${setting.server} on loopback`,
    columns: COLUMNS,
    rows: standings(samples, first),
    targets: eachOfOurs(readers, (name): Target[] => [
      target(`${name}: reads/s to the bare socket's`, ratio(samples, name, BARE, 'perSecond'), 'at least', 0.8),
      target(
        `${name}: reads/s to those on 3 sessions`,
        ratio(samples, name, `${name}, 3 sessions`, 'perSecond'),
        'at least',
        0.8,
      ),
    ]),
    notes: [BARE_NOTE],
  }
}

/** Point reads by a crowd, on a server that is 2 ms away. */
export async function acrossRelay(setting: Setting, max: number): Promise<Table> {
  const { host, port } = setting
  await using relay = startProcess(new URL('../relay.js', import.meta.url), {
    args: [JSON.stringify({ host, port }), String(DELAY_MS)],
  })
  const far = { ...setting, ...(await relay.next<{ host: string; port: number }>()) }
  const roundTripMs = await roundTrip(far)
  const [readers, bare] = await Promise.all([openReaders(far, { max }), openSockets(far, max)])
  const samples = await race(far, runners(readers, bare), RELAY_MS, QUICK_RELAY_MS)
  const first = better(samples, readers, 'perSecond', 'most')
  await close(readers, bare)
  return {
    title: `Point reads, ${CALLERS} callers on ${sessions(max)}: ${setting.server} behind a relay, ${roundTripMs.toFixed(1)} ms away`,
    columns: COLUMNS,
    rows: standings(samples, first),
    targets: eachOfOurs(readers, (name) => [
      target(`${name}: reads/s to the ${first}'s`, ratio(samples, name, first, 'perSecond'), 'at least', 40),
      target(`${name}: p99 to the ${first}'s`, ratio(samples, name, first, 'p99Ms'), 'at most', 0.1),
    ]),
    notes: [
      `The relay is a process of its own that holds each chunk back for ${DELAY_MS} ms each way; a caller alone waits ${roundTripMs.toFixed(2)} ms for a read. What it lets through at the most, and the machine, the bare socket shows.`,
    ],
  }
}

// Timers of Node come in whole milliseconds, and late: this makes a round trip of two.
const DELAY_MS = 1

const BARE_NOTE =
  'bare socket: ready-made COM_QUERY packets, the same reads in flight over as many sessions; of the replies only the ends are looked for, and no rows are made.'

async function roundTrip(setting: Setting): Promise<number> {
  const connection = await bareConnection(setting)
  const { wallUs } = await measureFor(150, () => connection.query(READ, [1]))
  await connection.end()
  return wallUs / 1000
}

function runners(readers: readonly Reader[], bare: BareSockets): Runner[] {
  return [
    ...readers.map((reader) => ({ name: reader.name, run: (lastsMs: number) => crowd(reader, lastsMs) })),
    { name: BARE, run: (lastsMs) => bare.crowd(CALLERS, lastsMs) },
  ]
}

async function crowd(reader: Reader, lastsMs: number): Promise<Sample> {
  const { done, cpuUs } = await load({ all: { callers: CALLERS, call: (turn) => readOne(reader, turn) } }, lastsMs)
  return { perSecond: done.all.perSecond, cpuUs, ...quantiles(done.all.times) }
}

async function close(readers: readonly Reader[], bare: BareSockets): Promise<void> {
  bare.end()
  await endAll(readers)
  await sleep(20)
}

function sessions(count: number): string {
  return count === 1 ? '1 session' : `${count} sessions`
}
