import { setImmediate as turn } from 'node:timers/promises'
import { heapUsed, measure, type Standing } from '../contest.js'
import type { Setting } from '../pools.js'
import type { Table } from '../table.js'
import { driverReader, holdfastReader, idOf, READ, warm, type Reader } from './readers.js'

const COUNT = 100_000
const QUICK_COUNT = 10_000
const FEW = 2_000
const HEARD = 10_000

/** All sessions are lent, and a crowd of reads waits, asked at once. */
export async function memory(setting: Setting): Promise<Table> {
  const count = setting.quick ? QUICK_COUNT : COUNT
  const options = { max: 1, patient: true }
  const readers = [
    driverReader(setting, 'mysql2', options),
    driverReader(setting, 'mariadb', options),
    ...setting.drivers.map((driver) => holdfastReader(setting, driver, options)),
  ]
  const rows: Standing[] = []
  for (const reader of readers) {
    await warm(reader, 1)
    await wait(reader, FEW)
    rows.push(await wait(reader, count))
    await reader.end()
  }
  const bytes = rows[0]?.values['bytes'] ?? NaN
  return {
    title: `${count} reads, asked at once, wait for the only session: ${setting.server} on loopback`,
    columns: [
      { key: 'bytes', head: 'bytes each', digits: 0, ratio: true },
      { key: 'askUs', head: 'ask CPU us', digits: 2 },
      { key: 'perSecond', head: 'then per s', digits: 0 },
    ],
    rows: rows.map((row) => ({ ...row, ratios: { bytes: (row.values['bytes'] ?? NaN) / bytes } })),
    notes: [
      "bytes: what the heap grows by for each, with the caller's promise and its values. then: how fast they are answered once the session is free.",
    ],
  }
}

/** Of those who waited, the first are heard to the end; with `count` a hundred thousand the rest would take too long. */
async function wait(reader: Reader, count: number): Promise<Standing> {
  const heard = Math.min(count, HEARD)
  const giveBack = await reader.take()
  const before = await heapUsed()
  let answers: readonly Promise<unknown>[] = []
  const ask = await measure(async () => {
    answers = Array.from({ length: count }, (_, at) => reader.query(READ, [idOf(at)]))
  })
  await turn()
  const bytes = ((await heapUsed()) - before) / count
  const answered = await measure(async () => {
    await giveBack()
    for (let at = 0; at < heard; at++) {
      const rows = reader.rows(await answers[at])
      if (rows[0]?.['id'] !== idOf(at)) throw new Error(`${reader.name}: not the row of ${idOf(at)}`)
    }
  })
  for (const answer of answers.slice(heard)) answer.catch(() => {})
  const values = { bytes, askUs: ask.cpuUs / count, perSecond: (heard / answered.wallUs) * 1e6 }
  return { name: reader.name, values, ratios: {}, least: {} }
}
