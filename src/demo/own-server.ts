import { randomUUID } from 'node:crypto'
import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { createPool, type Limits, type Pool, type PoolOptions } from '../index.js'
import { resolveOptions } from '../pool/options.js'
import { contender, type Address, type Contender, type ContenderOptions } from './contender.js'
import { seconds, type DriverName, type Mark, type Outcome, type Row, type Side } from './outcome.js'
import type { Report } from './report.js'
import { follow, Tally } from './tally.js'

const POOL = 10
const READS = 50
const WAIT_TIMEOUT_S = 2
const IDLE_S = 3
const TIMEOUT_MS = 300
// The watch, and with Holdfast a statement and the session that ends it.
const ROOM_NEEDED = 3
const NAME = 'holdfast-demo'

/** What the server tells anyone about the account, and how much of that is in use. */
interface Room {
  readonly limits: Limits
  /** Sessions of the same account that are not ours. */
  readonly others: number
  /** Sessions that we may open without being in anybody's way. */
  readonly left: number
}

/**
 * The harmless part, on a server that is in use: reads, and what can be done to one's own sessions. It creates and changes
 * nothing, and leaves to others what they hold.
 */
export async function ownServer(url: string, driver: DriverName, say: (text: string) => void): Promise<Report> {
  const address = addressOf(url)
  const open = (side: Side, options: Partial<ContenderOptions> = {}): Contender =>
    contender({ side, driver, address, ...options, holdfast: { name: NAME, ...options.holdfast } })
  const options: PoolOptions = { ...address, driver, name: NAME, acquireTimeoutMs: 5_000 }

  say('asking the server for its limits')
  const room = await roomOn(options)
  const size = sizeFor(room)
  const rows: Row[] = []
  const show = async (what: string, meet: (side: Side) => Promise<Outcome>): Promise<void> => {
    say(what)
    rows.push({ topic: 'own', what, outcomes: { driver: await meet('driver'), holdfast: await meet('holdfast') } })
  }

  await show(`${READS} reads at once with a pool of ${size}`, (side) => readMany(open(side, { max: size }), side))
  if (room.left >= ROOM_NEEDED) {
    await using watch = createPool({ ...options, max: 1 })
    await show('KILL of our own session during a read', (side) => killOwn(open(side, { max: 1 }), side, watch))
    await show(`a connection kept for ${IDLE_S} s without a word, with a wait_timeout of ${WAIT_TIMEOUT_S} s`, (side) =>
      keep(open(side, { max: 1, holdfast: { sessionInit: SHORT_WAIT } }), side),
    )
    await show(`a read that takes longer than its timeout (${TIMEOUT_MS} ms)`, (side) =>
      timeOut(open(side, { max: 2 }), side, watch),
    )
  }
  const { flavour, version } = room.limits.server
  return {
    driver,
    server: `${flavour === 'mariadb' ? 'MariaDB' : 'MySQL'} ${version}`,
    limits: room.limits,
    preface: describe(room),
    rows,
    afterword: afterword(room, size),
  }
}

/** Only what says where and who: the rest of the URL is for the application's own pool. */
function addressOf(url: string): Address {
  const { host, port, user, password, database, ssl } = resolveOptions(url)
  return {
    host,
    port,
    ...(user !== undefined && { user }),
    ...(typeof password === 'string' && { password }),
    ...(database !== undefined && { database }),
    ...(ssl !== undefined && { ssl }),
  }
}

async function roomOn(options: PoolOptions): Promise<Room> {
  await using pool = createPool({ ...options, max: 1 })
  const mine = "SELECT COUNT(*) AS n FROM information_schema.PROCESSLIST WHERE USER = SUBSTRING_INDEX(USER(), '@', 1)"
  const held = Number((await pool.query<{ n: number | bigint }>(mine)).rows[0]?.n ?? 1)
  const [status] = (await pool.query<{ Value: string }>("SHOW GLOBAL STATUS LIKE 'Threads_connected'")).rows
  const limits = pool.limits() as Limits
  const others = held - 1
  const ofAccount = (limits.maxUserConnections ?? Infinity) - others
  const ofServer = (limits.maxConnections ?? Infinity) - Number(status?.Value ?? 0)
  return { limits, others, left: Math.max(0, Math.min(ofAccount, ofServer)) }
}

/** On an account that others use, at most half of what they leave; on a free one its limit may be met. */
function sizeFor({ others, left }: Room): number {
  return left > 2 * POOL || (others === 0 && left >= ROOM_NEEDED) ? POOL : Math.min(POOL, Math.max(1, left >> 1))
}

async function readMany(pool: Contender, side: Side): Promise<Outcome> {
  await using own = pool
  const reads = Array.from({ length: READS }, (_, index) => follow(`read ${index}`, own.read('SELECT SLEEP(0.02)')))
  const tally = new Tally(await Promise.all(reads))
  return outcome(
    side,
    tally.allAnswered ? 'well' : 'failed',
    `${tally.sentence()}; opened ${own.opened} ${own.opened === 1 ? 'connection' : 'connections'}`,
    { ...tally.facts, opened: own.opened },
    { 'every read is answered': tally.allAnswered },
  )
}

async function killOwn(pool: Contender, side: Side, watch: Pool): Promise<Outcome> {
  await using own = pool
  const mark = randomUUID()
  const reading = follow('read', own.read(`SELECT /* ${mark} */ SLEEP(1)`), 15_000)
  const [thread] = await running(watch, mark, true)
  if (thread !== undefined) await watch.query(`KILL ${thread}`)
  const tally = new Tally([await reading])
  const again = thread !== undefined && tally.allAnswered ? ': it was run again' : ''
  return outcome(side, tally.allAnswered ? 'well' : 'failed', `${tally.sentence()}${again}`, tally.facts, {
    'the read is answered': tally.allAnswered,
  })
}

const SHORT_WAIT = `SET SESSION wait_timeout = ${WAIT_TIMEOUT_S}`

async function keep(pool: Contender, side: Side): Promise<Outcome> {
  await using own = pool
  const held = await own.acquire()
  try {
    if (side === 'driver') await held.run(SHORT_WAIT) // Holdfast has it as sessionInit, so that the pool knows
    await sleep(IDLE_S * 1000)
    const tally = new Tally([await follow('read', held.run('SELECT 1'))])
    const text = tally.allAnswered ? 'it was kept alive' : `lost: ${tally.names.join()}`
    return outcome(side, tally.allAnswered ? 'well' : 'failed', text, tally.facts, {
      'it is kept alive': tally.allAnswered,
    })
  } finally {
    held.release()
  }
}

async function timeOut(pool: Contender, side: Side, watch: Pool): Promise<Outcome> {
  await using own = pool
  const mark = randomUUID()
  const call = await follow('read', own.readWithin(TIMEOUT_MS, `SELECT /* ${mark} */ SLEEP(4)`), 10_000)
  const tally = new Tally([call])
  const began = performance.now()
  const left = await running(watch, mark, false)
  const endedInMs = Math.round(performance.now() - began)
  for (const thread of left) await watch.query(`KILL QUERY ${thread}`) // ours: nothing is to go on for us on that server
  const ended = left.length === 0
  const onTime = call.end !== 'answered' && call.ms > TIMEOUT_MS - 50 && call.ms < TIMEOUT_MS + 1_000
  const given = `${call.end === 'answered' ? 'answered' : `given up with ${tally.names.join()}`} after ${seconds(call.ms)}`
  const server = ended
    ? `ended on the server ${seconds(endedInMs)} later`
    : `runs on in the server, ${seconds(endedInMs)} later still`
  return outcome(
    side,
    ended && onTime ? 'well' : 'failed',
    onTime ? `${given}; ${server}` : given,
    { ...tally.facts, onTime, endedOnServer: ended, ...(ended && { endedInMs }) },
    { 'it is given up in time': onTime, 'it is ended on the server': ended },
  )
}

/** Own threads whose statement bears the mark, as soon as there are (`appear`) or are no more; what there is after 2 s. */
async function running(watch: Pool, mark: string, appear: boolean): Promise<number[]> {
  const sql =
    "SELECT ID AS id FROM information_schema.PROCESSLIST WHERE USER = SUBSTRING_INDEX(USER(), '@', 1) AND ID <> CONNECTION_ID() AND INFO LIKE ?"
  const deadline = performance.now() + 2_000
  for (;;) {
    const { rows } = await watch.query<{ id: number | bigint }>(sql, [`%${mark}%`])
    if (rows.length > 0 === appear || performance.now() > deadline) return rows.map(({ id }) => Number(id))
    await sleep(10)
  }
}

function outcome(
  side: Side,
  mark: Mark,
  text: string,
  facts: Record<string, unknown>,
  promises: Record<string, boolean>,
): Outcome {
  return { mark, text, facts, ...(side === 'holdfast' && { promises }) }
}

function describe({ limits, others }: Room): string[] {
  const { maxUserConnections, maxConnections, waitTimeoutMs, netWriteTimeoutMs, maxAllowedPacket, maxStatementTimeMs } =
    limits
  const inSeconds = (ms: number | undefined): string => (ms === undefined ? 'none' : `${ms / 1000} s`)
  const facts: [string, string][] = [
    ['connections of this account', `${maxUserConnections ?? 'no limit'}; ${others} held by other programs now`],
    ['connections of the server', String(maxConnections ?? 'not told')],
    ['wait_timeout', inSeconds(waitTimeoutMs)],
    ['net_write_timeout', inSeconds(netWriteTimeoutMs)],
    ['max_allowed_packet', maxAllowedPacket === undefined ? 'not told' : `${maxAllowedPacket / 2 ** 20} MiB`],
    ['time limit of a statement', inSeconds(maxStatementTimeMs)],
  ]
  return ['What it told of its limits:', ...facts.map(([name, value]) => `  ${name.padEnd(29)}${value}`)]
}

function afterword({ left }: Room, size: number): string {
  const skipped = `The rest needs ${ROOM_NEEDED} connections, and the account has room for ${left}.`
  const did = `What was done there: reads of SLEEP, never more than ${Math.max(size, ROOM_NEEDED)} connections at a time, one KILL of our own session for each pool. Nothing was created or changed.`
  return left < ROOM_NEEDED ? `${skipped} What was done there: reads of SLEEP. Nothing was created or changed.` : did
}
