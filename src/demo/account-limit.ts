import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { startRelay } from '../testing/relay.js'
import type { BurstTask } from './account-limit-process.js'
import type { Lab } from './lab.js'
import type { Outcome, Row, Side } from './outcome.js'
import { Tally, type Call } from './tally.js'

const PROCESSES = 3
const LIMIT = 3
const POOL = 10
const QUERIES = 50
const IDLE_MS = 1_500
// A process cannot know the account's limit before it dialled once; a few more are the price of sharing without talking.
const FEW_DIALS = 50

/** 1226: several processes, each with a pool, on an account that may hold few connections. */
export async function accountLimit(lab: Lab): Promise<Row[]> {
  const what = `${PROCESSES} processes, each with a pool of ${POOL} and ${QUERIES} reads at once, at a limit of ${LIMIT}`
  lab.say(`1226: ${what}`)
  // One after the other: six processes that start at once would spoil the times.
  const outcomes = { driver: await burst(lab, 'driver'), holdfast: await burst(lab, 'holdfast') }
  return [{ topic: '1226', what, outcomes }]
}

async function burst(lab: Lab, side: Side): Promise<Outcome> {
  const { account } = await lab.site(lab.servers.steady, { maxUserConnections: LIMIT })
  await using relay = await startRelay(account.config) // counts the dials
  const task: BurstTask = { side, driver: lab.driver, address: relay.config(account.config), max: POOL, queries: QUERIES }
  const processes = Array.from({ length: PROCESSES }, () => lab.process('./account-limit-process.js', task))
  try {
    await Promise.all(processes.map((child) => child.next()))
    const began = performance.now()
    for (const child of processes) child.send({ go: true })
    const calls = await Promise.all(processes.map((child) => child.next<Call[]>(30_000)))
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
