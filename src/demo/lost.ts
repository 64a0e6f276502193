import { startRelay, type Loss } from '../testing/relay.js'
import { meetingOf, threadsRunning, tokens, type Lab, type Site } from './lab.js'
import { bothSides, type Outcome, type Row, type Side } from './outcome.js'
import { hold, IN, MARKER, OPERATIONS, outcomeOf, perform, type Operation } from './perform.js'

/** Of each operation at once. */
export const CALLS = 10

/** 2013: the server's administrator ends the sessions. */
export async function killed(lab: Lab): Promise<Row[]> {
  const rows: Row[] = []
  for (const operation of OPERATIONS) {
    lab.say(`2013: ${CALLS} connections are killed ${IN[operation]}`)
    // All commits of a server are held back at once, and the others would be held back with them: one side at a time.
    const outcomes =
      operation === 'commit'
        ? { driver: await killAtCommit(lab, 'driver'), holdfast: await killAtCommit(lab, 'holdfast') }
        : await bothSides((side) => kill(lab, side, operation))
    rows.push({ topic: '2013', what: `KILL ${IN[operation]}`, outcomes })
  }
  return rows
}

async function kill(lab: Lab, side: Side, operation: Operation): Promise<Outcome> {
  const site = await lab.site(lab.servers.steady)
  await using pool = lab.contender(side, site.account.config)
  const letGo = await hold(site)
  const calls = perform(pool, operation, tokens(CALLS))
  const threads = await threadsRunning(site, MARKER, CALLS)
  await letGo()
  await killAll(site, threads)
  return outcomeOf(side, operation, site, await calls)
}

/** Under a global read lock a COMMIT waits: time enough to end it in its midst. */
async function killAtCommit(lab: Lab, side: Side): Promise<Outcome> {
  const site = await lab.site(lab.servers.frail)
  await using pool = lab.contender(side, site.account.config)
  const allThere = meetingOf(CALLS)
  const locked = meetingOf(1)
  const beforeCommit = (): Promise<void> => {
    allThere.arrive()
    return locked.complete
  }
  const calls = perform(pool, 'commit', tokens(CALLS), beforeCommit)
  await allThere.complete
  await site.server.query('FLUSH TABLES WITH READ LOCK')
  locked.arrive()
  await killAll(site, await threadsRunning(site, 'COMMIT', CALLS))
  await site.server.query('UNLOCK TABLES')
  return outcomeOf(side, 'commit', site, await calls)
}

async function killAll({ server }: Site, threads: readonly number[]): Promise<void> {
  for (const id of threads) await server.kill(id)
}

/** 2013: the network resets the connection, for one half before the server had the request, for the other after it was done. */
export async function reset(lab: Lab): Promise<Row[]> {
  return await Promise.all(
    OPERATIONS.map(async (operation) => {
      lab.say(`2013: the network resets ${CALLS} connections ${IN[operation]}`)
      const outcomes = await bothSides((side) => resetIn(lab, side, operation))
      return { topic: '2013', what: `network reset ${IN[operation]}`, outcomes } satisfies Row
    }),
  )
}

async function resetIn(lab: Lab, side: Side, operation: Operation): Promise<Outcome> {
  const site = await lab.site(lab.servers.steady)
  await using relay = await startRelay(site.account.config)
  relay.onRequest = losingInTurn(operation === 'commit' ? 'COMMIT' : MARKER, 'reset', CALLS)
  await using pool = lab.contender(side, relay.config(site.account.config))
  const outcome = await outcomeOf(side, operation, site, await perform(pool, operation, tokens(CALLS)))
  if (relay.losses !== CALLS) throw new Error(`${relay.losses} of ${CALLS} requests were lost`)
  return outcome
}

/** The first requests with that text are lost: one before the server has it, the next when it was done, and so on. */
export function losingInTurn(text: string, how: 'reset' | 'stall', times: number): (chunk: Buffer) => Loss | undefined {
  let seen = 0
  return (chunk) => {
    if (seen === times || !chunk.includes(text)) return undefined
    return `${how}-${seen++ % 2 === 0 ? 'before' : 'after'}`
  }
}
