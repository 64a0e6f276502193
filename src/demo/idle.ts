import { setTimeout as sleep } from 'node:timers/promises'
import type { IdleTask } from './idle-process.js'
import { LATE_MS, rowsOf, WAIT_TIMEOUT_S, type Lab, type Site } from './lab.js'
import { bothSides, type Outcome, type Row, type Side } from './outcome.js'
import { audit, follow, markOf, Tally, type Call } from './tally.js'

const IDLE_S = 3
const IDLE_MS = IDLE_S * 1000
const SESSIONS = 5

/** 2006: the server closes a session that says nothing for wait_timeout, and a program uses it all the same. */
export async function idle(lab: Lab): Promise<Row[]> {
  const { hasty } = lab.servers
  const then = `then ${SESSIONS} writes at once`
  const scenes: [what: string, meet: (site: Site, side: Side) => Promise<Outcome>][] = [
    [`${SESSIONS} connections idle for ${IDLE_S} s, ${then}`, (site, side) => live(lab, site, side)],
    [`a transaction pauses for ${IDLE_S} s`, (site, side) => paused(lab, site, side)],
    [`event loop blocked for ${IDLE_S} s, ${then}`, (site, side) => inProcess(lab, site, side, 'block')],
    [`process frozen (SIGSTOP) for ${IDLE_S} s, ${then}`, (site, side) => inProcess(lab, site, side, 'freeze')],
  ]
  return await Promise.all(
    scenes.map(async ([what, meet]) => {
      lab.say(`2006: ${what}; wait_timeout is ${WAIT_TIMEOUT_S} s`)
      const outcomes = await bothSides(async (side) => meet(await lab.site(hasty), side))
      return { topic: '2006', what, outcomes } satisfies Row
    }),
  )
}

async function live(lab: Lab, site: Site, side: Side): Promise<Outcome> {
  await using pool = lab.contender(side, site.account.config)
  await Promise.all(Array.from({ length: SESSIONS }, () => pool.read('SELECT SLEEP(0.1)')))
  await sleep(IDLE_MS)
  const calls = Array.from({ length: SESSIONS }, (_, index) => {
    const token = `write ${index}`
    return follow(token, pool.write('INSERT INTO work (token) VALUES (?)', [token]))
  })
  return told(side, site, await Promise.all(calls))
}

async function paused(lab: Lab, site: Site, side: Side): Promise<Outcome> {
  await using pool = lab.contender(side, site.account.config)
  const token = 'transaction'
  let runs = 0
  const work = pool.transaction(async (run) => {
    runs++
    await run('INSERT INTO work (token, step) VALUES (?, 1)', [token])
    await sleep(IDLE_MS)
    await run('INSERT INTO work (token, step) VALUES (?, 2)', [token])
  })
  const tally = new Tally([await follow(token, work)])
  const { done, half } = audit(tally.calls, await rowsOf(site), 2)
  const text = tally.allAnswered
    ? 'committed: it was kept alive'
    : `failed: ${tally.names.join()}; nothing is left of it`
  return {
    mark: markOf(side, tally),
    text,
    facts: { ...tally.facts, committed: done, runs },
    ...(side === 'holdfast' && {
      promises: { 'it is committed, once': done === 1 && half === 0, 'it was run once': runs === 1 },
    }),
  }
}

/** A process that cannot hear the server hang up: no timer of its pool runs either. */
async function inProcess(lab: Lab, site: Site, side: Side, how: 'block' | 'freeze'): Promise<Outcome> {
  const options = { side, driver: lab.driver, address: site.account.config }
  const task: IdleTask = { ...options, sessions: SESSIONS, pauseMs: IDLE_MS }
  await using child = lab.process('./idle-process.js', task)
  await child.next(LATE_MS)
  child.send({ how })
  if (how === 'freeze') {
    await child.next(LATE_MS)
    await child.freeze()
    await sleep(IDLE_MS)
    child.thaw()
  }
  return told(side, site, await child.next<Call[]>(IDLE_MS + LATE_MS))
}

async function told(side: Side, site: Site, calls: readonly Call[]): Promise<Outcome> {
  const tally = new Tally(calls)
  const { done, twice, untrue } = audit(calls, await rowsOf(site))
  return {
    mark: markOf(side, tally),
    text: tally.sentence(),
    facts: { ...tally.facts, done, twice },
    ...(side === 'holdfast' && {
      promises: {
        'every write is done': done === tally.asked,
        'none is done twice': twice === 0,
        'every error says truly what became of the work': untrue === 0,
      },
    }),
  }
}
