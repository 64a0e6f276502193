import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { startRelay } from '../testing/relay.js'
import type { BurstTask } from './account-limit-process.js'
import { LATE_MS, tokens, type Lab } from './lab.js'
import { bothSides, type Outcome, type Row, type Side } from './outcome.js'
import { follow, Tally, type Call } from './tally.js'

const PROCESSES = 3
const LIMIT = 3
const POOL = 10
const QUERIES = 50
const IDLE_MS = 1_500
// A process cannot know the account's limit before it dialled once; a few more are the price of sharing without talking.
const FEW_DIALS = 75

/** 1226: several processes, each with a pool, on an account that may hold few connections. */
export async function accountLimit(lab: Lab): Promise<Row[]> {
  const what = `${PROCESSES} processes, each with a pool of ${POOL} and ${QUERIES} reads at once, at a limit of ${LIMIT}`
  lab.say(`1226: ${what}`)
  // One after the other: six processes that start at once would spoil the times.
  const outcomes = { driver: await burst(lab, 'driver'), holdfast: await burst(lab, 'holdfast') }
  return [{ topic: '1226', what, outcomes }, await heldByOthers(lab)]
}

/** A pool that has nothing to do keeps what others need. */
async function heldByOthers(lab: Lab): Promise<Row> {
  const what = `a process has used all ${LIMIT} and idles; another one reads`
  lab.say(`1226: ${what}`)
  return { topic: '1226', what, outcomes: await bothSides((side) => readBeside(lab, side)) }
}

async function readBeside(lab: Lab, side: Side): Promise<Outcome> {
  const { account } = await lab.site(lab.servers.steady, { maxUserConnections: LIMIT })
  const task: BurstTask = { side, driver: lab.driver, address: account.config, max: LIMIT, queries: LIMIT }
  await using other = lab.process('./account-limit-process.js', task)
  await other.next(LATE_MS)
  other.send({ go: true })
  await other.next(LATE_MS)
  await using pool = lab.contender(side, account.config, { max: LIMIT })
  const tally = new Tally(await Promise.all(tokens(LIMIT).map((token) => follow(token, pool.read('SELECT 1')))))
  return {
    mark: tally.allAnswered ? 'well' : 'failed',
    text: tally.allAnswered ? `${tally.sentence()}: the other gave idle ones back` : tally.sentence(),
    facts: tally.facts,
    ...(side === 'holdfast' && { promises: { 'every read is answered': tally.allAnswered } }),
  }
}

async function burst(lab: Lab, side: Side): Promise<Outcome> {
  const { account } = await lab.site(lab.servers.steady, { maxUserConnections: LIMIT })
  await using relay = await startRelay(account.config) // counts the dials
  const task: BurstTask = {
    side,
    driver: lab.driver,
    address: relay.config(account.config),
    max: POOL,
    queries: QUERIES,
  }
  const processes = Array.from({ length: PROCESSES }, () => lab.process('./account-limit-process.js', task))
  try {
    await Promise.all(processes.map((child) => child.next(LATE_MS)))
    const began = performance.now()
    for (const child of processes) child.send({ go: true })
    const calls = await Promise.all(processes.map((child) => child.next<Call[]>(LATE_MS)))
    const tookMs = performance.now() - began
    const dials = relay.accepted
    await sleep(IDLE_MS)
    return told(side, new Tally(calls.flat()), dials, relay.accepted - dials, tookMs)
  } finally {
    await Promise.all(processes.map((child) => child.kill()))
  }
}

function told(side: Side, tally: Tally, dials: number, idleDials: number, tookMs: number): Outcome {
  const idle = idleDials === 0 ? 'none while idle' : `and ${idleDials} in ${IDLE_MS / 1000} idle seconds`
  return {
    mark: tally.allAnswered ? 'well' : 'failed',
    text: `${tally.sentence()}; ${dials} dials, ${idle}`,
    facts: { ...tally.facts, dials, idleDials, tookMs: Math.round(tookMs) },
    ...(side === 'holdfast' && {
      promises: {
        'every read is answered': tally.allAnswered,
        [`at most ${FEW_DIALS} dials`]: dials <= FEW_DIALS,
        'no dial while idle': idleDials === 0,
      },
    }),
  }
}
