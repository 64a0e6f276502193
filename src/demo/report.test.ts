import { describe, expect, test } from 'vitest'
import type { Outcome, Row } from './outcome.js'
import { isAsPromised, jsonOf, lookFor, textOf, type Report } from './report.js'

const facts = { asked: 10, answered: 0, waiting: 0 }
const theirs: Outcome = { mark: 'failed', text: '10 of 10 failed: ECONNRESET', facts }
const ours: Outcome = {
  mark: 'told',
  text: '10 of 10 failed: SESSION_LOST',
  facts,
  promises: { 'none is done twice': true },
}
const row: Row = { topic: '2013', what: 'KILL during a write', outcomes: { driver: theirs, holdfast: ours } }
const broken: Row = {
  ...row,
  outcomes: { driver: theirs, holdfast: { ...ours, promises: { 'none is done twice': false } } },
}
const report = (...rows: Row[]): Report => ({ driver: 'mysql2', server: 'MariaDB 10.11.19', rows })
const look = lookFor({}, {})

describe('the report', () => {
  test('names what both did, under the heading of the failure', () => {
    const text = textOf([report(row)], look)
    expect(text).toMatch(
      /2013: lost connection[^]*KILL during a write +✗ 10 of 10 failed: ECONNRESET +! 10 of 10 failed: SESSION_LOST/,
    )
    expect(text).not.toContain('1226: more')
    expect(text).toContain("In all, 10 of 10 calls failed or hung with mysql2's own pool.")
  })

  test('is not silent about a promise that was not kept', () => {
    expect(isAsPromised([report(row)])).toBe(true)
    expect(isAsPromised([report(row), report(row, broken)])).toBe(false)
    expect(textOf([report(broken)], look)).toMatch(/✗ NOT AS PROMISED \(none is done/)
    expect(JSON.parse(jsonOf([report(broken)], 5))).toMatchObject({
      asPromised: false,
      reports: [
        { driver: 'mysql2', rows: [{ what: 'KILL during a write', holdfast: { broken: ['none is done twice'] } }] },
      ],
    })
  })

  test('fits 100 columns at the most', () => {
    for (const columns of [60, 80, 100, 200]) {
      const lines = textOf([report(row, broken)], lookFor({ columns }, {})).split('\n')
      const table = lines.slice(
        0,
        lines.findIndex((line) => line.startsWith('✓')),
      )
      expect(Math.max(...table.map((line) => line.length))).toBeLessThanOrEqual(Math.min(columns, 100))
    }
  })
})

describe('colours', () => {
  const colours = (stream: { isTTY?: boolean }, env: NodeJS.ProcessEnv): boolean =>
    textOf([report(row)], lookFor(stream, env)).includes('\u001B[')

  test('are for terminals that want them', () => {
    expect(colours({ isTTY: true }, {})).toBe(true)
    expect(colours({ isTTY: true }, { NO_COLOR: '1' })).toBe(false)
    expect(colours({ isTTY: true }, { TERM: 'dumb' })).toBe(false)
    expect(colours({}, {})).toBe(false)
  })
})
