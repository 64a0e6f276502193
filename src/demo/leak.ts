import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { LATE_MS, TemporaryFolder, type Lab } from './lab.js'
import type { LeakReport, LeakTask } from './leak-process.js'
import { bothSides, seconds, type Outcome, type Row, type Side } from './outcome.js'
import { Tally } from './tally.js'

const POOL = 3
const LEAK_AFTER_MS = 500
const PATIENCE_MS = 12_000

/** A program of somebody else's: it takes a connection, and forgets it on one of its ways out. */
const REPORT = `export async function report(pool) {
  const connection = await pool.acquire()
  const rows = await connection.run('SELECT 1 AS total FROM DUAL WHERE 1 = 0')
  if (rows.length !== 1) return connection
  connection.release()
}
`
const FORGETFUL_LINE = 2

/** Connections that are never given back. */
export async function leak(lab: Lab): Promise<Row[]> {
  using folder = new TemporaryFolder()
  const file = join(folder.path, 'report.mjs')
  writeFileSync(file, REPORT)
  return await Promise.all([
    row(lab, file, false, `a pool of ${POOL} has lent all to code that does not release them`),
    row(lab, file, true, 'the same, and no reference to them is left'),
  ])
}

async function row(lab: Lab, file: string, dropped: boolean, what: string): Promise<Row> {
  lab.say(`leak: a program forgets ${POOL} connections${dropped ? ', and drops every reference to them' : ''}`)
  const outcomes = await bothSides((side) => forget(lab, side, file, dropped))
  return { topic: 'leak', what, outcomes }
}

async function forget(lab: Lab, side: Side, file: string, dropped: boolean): Promise<Outcome> {
  const { account } = await lab.site(lab.servers.steady)
  const options = { side, driver: lab.driver, address: account.config, max: POOL }
  const watch = dropped ? {} : { leakAfterMs: LEAK_AFTER_MS, holdfast: { onLeak: 'reclaim' } as const }
  const task: LeakTask = { ...options, ...watch, file, dropped, sessions: POOL, patienceMs: PATIENCE_MS }
  await using child = lab.process('./leak-process.js', task, dropped ? ['--expose-gc'] : [])
  const report = await child.next<LeakReport>(PATIENCE_MS + LATE_MS)
  return told(side, report, dropped)
}

function told(side: Side, { call, takenAt }: LeakReport, dropped: boolean): Outcome {
  const tally = new Tally([call])
  const places = [...new Set(takenAt.map((place) => place.replace(/^.*\//, '')))]
  const after = dropped ? 'when garbage-collected' : `after leakAfterMs (${LEAK_AFTER_MS})`
  return {
    mark: tally.allAnswered ? 'well' : 'failed',
    text: tally.allAnswered
      ? `answered in ${seconds(call.ms)}: they are taken back ${after}, and reported with the place (${places.join(', ')})`
      : call.end === 'waiting'
        ? `hangs: no answer and no error for ${seconds(call.ms)}`
        : `fails after ${seconds(call.ms)}: ${tally.names.join()}; nothing says who holds them`,
    facts: { ...tally.facts, takenAt: places },
    ...(side === 'holdfast' && {
      promises: {
        'the read is answered': tally.allAnswered,
        'every leak is reported': takenAt.length === POOL,
        'with the line where it was taken': places.every((place) => place.startsWith(`report.mjs:${FORGETFUL_LINE}:`)),
      },
    }),
  }
}
