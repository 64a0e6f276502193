import type { Result, Session, Statement } from '../../src/driver.js'
import { Fault } from '../../src/faults/fault.js'
import type { DriverName } from './drivers.js'

/** What became of a piped statement. */
export type Outcome = Result | Fault

/** Never rejects. Throws, out of the loop, when it is answered twice. */
export function pipe(session: Session, statement: Statement | string): Promise<Outcome> {
  let answers = 0
  return new Promise((resolve) => {
    const once = (outcome: Outcome): void => {
      if (++answers > 1) throw new Error('a piped statement was answered twice')
      resolve(outcome)
    }
    session.pipe?.(typeof statement === 'string' ? { sql: statement } : statement, {
      resolve: once,
      reject: (fault) => once(fault as Fault),
    })
  })
}

/** For a test to say what it saw: rows, or what kind of fault it was. */
export function shown(outcome: Outcome): unknown {
  if (!(outcome instanceof Fault)) return outcome.rows
  const { kind, session, effect, error } = outcome
  return { kind, session, effect, errno: (error as { errno?: number }).errno }
}

export interface Case {
  readonly statement: Statement
  /** What is wrong with the outcome, if anything is. */
  wrong(outcome: Outcome): unknown
}

/** Statements of all kinds in any order, of which each can only have one answer. The last kind is of some MB. */
export function cases(name: DriverName, count: number, seed: number): Case[] {
  let state = seed
  const random = (below: number): number => {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31
    return Math.floor((state / 2 ** 31) * below)
  }
  return Array.from({ length: count }, (_, index) => {
    const n = seed * 10_000 + index
    return index % 67 === 66 ? large(n) : (MAKERS[random(MAKERS.length)] as (typeof MAKERS)[number])(n, name)
  })
}

const MAKERS: readonly ((n: number, name: DriverName) => Case)[] = [
  (n) => giving({ sql: `SELECT ${n} AS n` }, [{ n }]),
  (n) => giving({ sql: 'SELECT ? AS n', values: [n] }, [{ n }]),
  (n) => giving({ sql: 'SELECT CONCAT(?, 1) AS n', values: [String(n)], prepare: true }, [{ n: `${n}1` }]),
  // not prepared before
  (n) => giving({ sql: `SELECT CONCAT(?, ${n}) AS n`, values: ['a'], prepare: true }, [{ n: `a${n}` }]),
  (n) => failing({ sql: `SELEC ${n}`, prepare: n % 2 === 0 }, 'statement', 1064),
  (n) => failing({ sql: `SELECT * FROM missing${n}`, prepare: n % 2 === 0 }, 'statement', 1146),
  (n) => {
    const pad = 'x'.repeat((n % 37) * 1000)
    return giving({ sql: `SELECT ${n} AS n, REPEAT('x', ?) AS pad`, values: [pad.length] }, [{ n, pad }])
  },
  // About as many packets as it takes for their numbers to come round to 0.
  (n) => {
    const rows = Array.from({ length: 230 + (n % 50) }, (_, i) => ({ n, i: i + 1 }))
    const sql = `WITH RECURSIVE seq AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM seq WHERE i < ${rows.length}) SELECT ${n} AS n, i FROM seq`
    return giving({ sql, prepare: n % 3 === 0 }, rows)
  },
  // mysql2 takes no undefined; mariadb wants a value for each parameter.
  (n, name) =>
    failing({ sql: 'SELECT ? + ?', values: name === 'mysql2' ? [n, undefined] : [n], prepare: true }, 'client'),
]

function large(n: number): Case {
  const pad = 'ab'.repeat(1_000_000 + n)
  return giving({ sql: `SELECT REPEAT('ab', ${1_000_000 + n}) AS pad, ${n} AS n` }, [{ pad, n }])
}

function giving(statement: Statement, rows: readonly object[]): Case {
  const expected = JSON.stringify(rows)
  const wrong = (outcome: Outcome): unknown =>
    !(outcome instanceof Fault) && JSON.stringify(outcome.rows) === expected ? undefined : [statement, shown(outcome)]
  return { statement, wrong }
}

function failing(statement: Statement, kind: string, errno?: number): Case {
  const wrong = (outcome: Outcome): unknown =>
    outcome instanceof Fault &&
    outcome.kind === kind &&
    outcome.session === 'usable' &&
    outcome.effect === 'none' &&
    (errno === undefined || (outcome.error as { errno?: number }).errno === errno)
      ? undefined
      : [statement, shown(outcome)]
  return { statement, wrong }
}
