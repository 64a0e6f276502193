import type { Contender } from './contender.js'
import { rowsOf, type Site } from './lab.js'
import type { Outcome, Side } from './outcome.js'
import { audit, follow, markOf, Tally, type Call } from './tally.js'

/** What is under way when the connection is lost. */
export type Operation = 'read' | 'write' | 'transaction' | 'commit'
export const OPERATIONS: readonly Operation[] = ['read', 'write', 'transaction', 'commit']

export const IN: Readonly<Record<Operation, string>> = {
  read: 'during a read',
  write: 'during a write',
  transaction: 'within a transaction',
  commit: 'at its COMMIT',
}

/** Stands in the text of the statement that is under way, so that it can be seen on the wire and in the process list. */
export const MARKER = '/* under way */'

// What is under way lasts as long as somebody holds the lock with the database's name: see `hold`.
const AWHILE = 'SLEEP(IF(IS_FREE_LOCK(DATABASE()), 0, 60))'

/** From now on statements with the MARKER last until they are killed; once the result is called, those that begin then do not. */
export async function hold({ server, account }: Site): Promise<() => Promise<void>> {
  await server.query('SELECT GET_LOCK(?, 10)', [account.database])
  return async () => void (await server.query('SELECT RELEASE_LOCK(?)', [account.database]))
}

/** A few of one operation at once, each followed to its end. `beforeCommit` is awaited by transactions at 'commit'. */
export async function perform(
  pool: Contender,
  operation: Operation,
  tokens: readonly string[],
  beforeCommit?: () => Promise<void>,
): Promise<Call[]> {
  return Promise.all(tokens.map((token) => follow(token, one(pool, operation, token, beforeCommit))))
}

async function one(
  pool: Contender,
  operation: Operation,
  token: string,
  beforeCommit: (() => Promise<void>) | undefined,
): Promise<void> {
  switch (operation) {
    case 'read':
      await pool.read(`SELECT ${MARKER} ${AWHILE}`)
      break
    case 'write':
      await pool.write(`INSERT ${MARKER} INTO work (token, step) SELECT ?, ${AWHILE}`, [token])
      break
    case 'transaction':
      await pool.transaction(async (run) => {
        await run('INSERT INTO work (token, step) VALUES (?, 1)', [token])
        await run(`INSERT ${MARKER} INTO work (token, step) SELECT ?, 2 + ${AWHILE}`, [token])
      })
      break
    case 'commit':
      await pool.transaction(async (run) => {
        await run('INSERT INTO work (token, step) VALUES (?, 1)', [token])
        await run('INSERT INTO work (token, step) VALUES (?, 2)', [token])
        await beforeCommit?.()
      })
  }
}

const ROWS: Readonly<Record<Operation, number>> = { read: 0, write: 1, transaction: 2, commit: 2 }

/** How it ended, as the callers were told and as it stands in the table. */
export async function outcomeOf(
  side: Side,
  operation: Operation,
  site: Site,
  calls: readonly Call[],
): Promise<Outcome> {
  const tally = new Tally(calls)
  const { done, twice, half, untrue } = audit(calls, await rowsOf(site), ROWS[operation])
  const wrote = operation === 'read' ? {} : { done, twice, half, untrue }
  return {
    mark: markOf(side, tally),
    text: side === 'holdfast' ? holdfastText(operation, tally, done) : driverText(operation, tally, done),
    facts: { ...tally.facts, ...wrote },
    ...(side === 'holdfast' && {
      promises: {
        ...promisesFor(operation, tally),
        'nothing is done twice': twice === 0,
        'nothing is done by half': half === 0,
        'every error says truly what became of the work': untrue === 0,
      },
    }),
  }
}

function promisesFor(operation: Operation, tally: Tally): Record<string, boolean> {
  if (operation === 'read') return { 'every read is answered': tally.allAnswered }
  if (operation === 'transaction') return { 'every transaction is committed': tally.allAnswered }
  const code = operation === 'write' ? 'SESSION_LOST' : 'COMMIT_UNKNOWN'
  const asPromised = tally.failures.every(({ name, effect }) => name === code && effect === 'unknown')
  return { [`whoever fails is told ${code}, effect: 'unknown'`]: asPromised && tally.waiting === 0 }
}

function driverText(operation: Operation, tally: Tally, done: number): string {
  const sentence = tally.sentence()
  if (tally.allAnswered || operation === 'read') return sentence
  if (operation === 'transaction') return `${sentence}; their work is gone`
  return `${sentence}. ${operation === 'commit' ? 'Committed' : 'Done'} or not? (${done} were.)`
}

function holdfastText(operation: Operation, tally: Tally, done: number): string {
  if (tally.allAnswered)
    return `${tally.sentence(operation === 'read' ? 'answered' : 'committed')}: they were run again`
  if (operation === 'read' || operation === 'transaction') return tally.sentence()
  return `${tally.sentence()}, effect 'unknown' (${done} were ${operation === 'commit' ? 'committed' : 'done'}, none twice)`
}
