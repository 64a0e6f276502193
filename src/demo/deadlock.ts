import { meetingOf, rowsOf, type Lab } from './lab.js'
import { bothSides, type Outcome, type Row, type Side } from './outcome.js'
import { audit, follow, markOf, Tally, type Call } from './tally.js'
import type { Contender } from './contender.js'

const PAIRS = 5

/** 1213: two transactions lock the same two rows, each in its own order. */
export async function deadlock(lab: Lab): Promise<Row[]> {
  lab.say(`1213: ${PAIRS} pairs of transactions lock the same rows crosswise`)
  const outcomes = await bothSides((side) => crosswise(lab, side))
  return [{ topic: 'deadlock', what: `${PAIRS} pairs of transactions lock the same rows crosswise`, outcomes }]
}

async function crosswise(lab: Lab, side: Side): Promise<Outcome> {
  const site = await lab.site(lab.servers.steady)
  const { server, account } = site
  await server.query('CREATE TABLE ??.account (id INT PRIMARY KEY, balance INT)', [account.database])
  for (let id = 0; id < 2 * PAIRS; id++)
    await server.query('INSERT INTO ??.account VALUES (?, 100)', [account.database, id])
  await using pool = lab.contender(side, account.config)
  const pairs = Array.from({ length: PAIRS }, (_, pair) => meet(pool, 2 * pair, 2 * pair + 1))
  const tally = new Tally((await Promise.all(pairs)).flat())
  const { done, twice, untrue } = audit(tally.calls, await rowsOf(site))
  const [sum] = await server.query<{ balance: number }>('SELECT SUM(balance) AS balance FROM ??.account', [
    account.database,
  ])
  return {
    mark: markOf(side, tally),
    text: tally.sentence('committed'),
    facts: { ...tally.facts, done, twice },
    ...(side === 'holdfast' && {
      promises: {
        'every transaction is committed': done === tally.asked,
        'none is done twice': twice === 0 && untrue === 0,
        'no money is lost': Number(sum?.balance) === 2 * PAIRS * 100,
      },
    }),
  }
}

/** Both hold their first row before either asks for its second. */
function meet(pool: Contender, one: number, other: number): Promise<Call[]> {
  const bothHold = meetingOf(2)
  const transfer = (from: number, to: number): Promise<Call> => {
    const token = `from ${from} to ${to}`
    const work = pool.transaction(async (run) => {
      await run('INSERT INTO work (token) VALUES (?)', [token])
      await run('UPDATE account SET balance = balance - 1 WHERE id = ?', [from])
      bothHold.arrive()
      await bothHold.complete
      await run('UPDATE account SET balance = balance + 1 WHERE id = ?', [to])
    })
    return follow(token, work)
  }
  return Promise.all([transfer(one, other), transfer(other, one)])
}
