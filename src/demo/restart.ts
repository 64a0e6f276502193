import { setTimeout as sleep } from 'node:timers/promises'
import { startRelay, type Relay } from '../testing/relay.js'
import type { Contender } from './contender.js'
import { rowsOf, threadsRunning, tokens, until, type Lab, type Site } from './lab.js'
import { CALLS, losingInTurn } from './lost.js'
import { bothSides, type Outcome, type Row, type Side } from './outcome.js'
import { hold, IN, MARKER, OPERATIONS, outcomeOf, perform, type Operation } from './perform.js'
import { audit, follow, markOf, Tally, type Call } from './tally.js'

const DOWN_S = 1.5
const ARRIVALS = 40
const EVERY_MS = 50

/** 2013: the server is killed with everything under way, and is back after a while. One restart for all of it. */
export async function restarted(lab: Lab): Promise<Row[]> {
  const { frail } = lab.servers
  lab.say(`2013: bringing reads, writes, transactions and commits under way on a server that is about to die`)
  const scenes = await Promise.all(OPERATIONS.map((operation) => bothSides((side) => underWay(lab, side, operation))))
  const bystanders = await bothSides((side) => warmedUp(lab, side))

  lab.say(`2013: the server is killed (SIGKILL) and down for ${DOWN_S} s`)
  await frail.stop('SIGKILL')
  for (const { driver, holdfast } of scenes) for (const { relay } of [driver, holdfast]) relay?.reset()
  const arriving = bothSides((side) => arrive(bystanders[side]))
  await sleep(DOWN_S * 1000)
  await frail.start()
  lab.say('2013: the server is back')

  const rows: Row[] = []
  for (const [index, operation] of OPERATIONS.entries()) {
    const outcomes = await bothSides((side) => (scenes[index] as Record<Side, Scene>)[side].end())
    rows.push({ topic: '2013', what: `server restart ${IN[operation]}`, outcomes })
  }
  const arrivals = await arriving
  const outcomes = await bothSides((side) => arrived(side, bystanders[side], arrivals[side]))
  const what = `${ARRIVALS} writes, one each ${EVERY_MS} ms, from when the server is down`
  return [...rows, { topic: '2013', what, outcomes }]
}

interface Scene {
  readonly relay: Relay | undefined
  end(): Promise<Outcome>
}

/** Resolves when all calls of the operation are in the midst of it. */
async function underWay(lab: Lab, side: Side, operation: Operation): Promise<Scene> {
  const site = await lab.site(lab.servers.frail)
  // What the server had committed, or not, when it died, and never came to say.
  const relay = operation === 'commit' ? await startRelay(site.account.config) : undefined
  if (relay) relay.onRequest = losingInTurn('COMMIT', 'stall', CALLS)
  const pool = lab.contender(side, relay?.config(site.account.config) ?? site.account.config)
  await hold(site) // until the server dies
  const calls = perform(pool, operation, tokens(CALLS))
  if (relay) await untilLost(relay, site)
  else await threadsRunning(site, MARKER, CALLS)
  return {
    relay,
    end: async () => {
      const outcome = await outcomeOf(side, operation, site, await calls)
      await pool[Symbol.asyncDispose]()
      await relay?.[Symbol.asyncDispose]()
      return outcome
    },
  }
}

/** Half of the commits are in the table then, and nobody was told. */
async function untilLost(relay: Relay, site: Site): Promise<void> {
  await until(
    `${CALLS} commits are lost`,
    async () => relay.losses === CALLS && (await rowsOf(site)).size === CALLS / 2,
  )
}

interface Bystander {
  readonly site: Site
  readonly pool: Contender
}

async function warmedUp(lab: Lab, side: Side): Promise<Bystander> {
  const site = await lab.site(lab.servers.frail)
  const pool = lab.contender(side, site.account.config)
  await Promise.all(tokens(CALLS).map(() => pool.read('SELECT SLEEP(0.05)')))
  return { site, pool }
}

async function arrive({ pool }: Bystander): Promise<Call[]> {
  const calls: Promise<Call>[] = []
  for (const token of tokens(ARRIVALS)) {
    calls.push(follow(token, pool.write('INSERT INTO work (token) VALUES (?)', [token])))
    await sleep(EVERY_MS)
  }
  return await Promise.all(calls)
}

async function arrived(side: Side, { site, pool }: Bystander, calls: readonly Call[]): Promise<Outcome> {
  const tally = new Tally(calls)
  const { done, twice, untrue } = audit(calls, await rowsOf(site))
  await pool[Symbol.asyncDispose]()
  return {
    mark: markOf(side, tally),
    text: tally.sentence('done'),
    facts: { ...tally.facts, done, twice },
    ...(side === 'holdfast' && {
      promises: {
        'whoever comes while the server is down waits, and is served': tally.allAnswered,
        'nothing is done twice': twice === 0,
        'every error says truly what became of the work': untrue === 0,
      },
    }),
  }
}
