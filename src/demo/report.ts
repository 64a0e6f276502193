import type { Limits } from '../index.js'
import { brokenPromises, type DriverName, type Mark, type Row, type Topic } from './outcome.js'
import { WAIT_TIMEOUT_S } from './lab.js'
import { CALLS } from './lost.js'
import { table, wrap, type Cell, type Line, type Look } from './table.js'

export interface Report {
  readonly driver: DriverName
  readonly server: string
  /** Of the user's own server. */
  readonly limits?: Limits
  readonly preface?: readonly string[]
  readonly rows: readonly Row[]
  readonly afterword?: string
}

const HEADINGS: Readonly<Record<Topic, string>> = {
  '1226': '1226: more connections than the account may hold (max_user_connections)',
  '2006': `2006: the server has gone away (it closes who is silent for longer than wait_timeout, here ${WAIT_TIMEOUT_S} s)`,
  '2013': `2013: lost connection to server during query (${CALLS} calls at once; the reads are marked idempotent)`,
  leak: 'Leaks: connections that nobody gives back, and a read that needs one',
  deadlock: '1213: deadlock',
  own: 'On your own server',
}

const SIGNS: Readonly<Record<Mark, string>> = { well: '✓', told: '!', failed: '✗' }
const LEGEND = `${SIGNS.well} all got what they asked for   ${SIGNS.told} not all, but told truly what became of it   ${SIGNS.failed} left to the caller`

const SHARES = [27, 33, 36]

export function tableOf({ driver, server, limits, preface = [], rows, afterword }: Report, look: Look): string {
  const titles = [limits ? 'what we did' : 'what we broke', `  ${driver}'s own pool`, `  Holdfast, over ${driver}`]
  const lines = Object.entries(HEADINGS).flatMap(([topic, heading]): Line[] => {
    const own = rows.filter((row) => row.topic === topic)
    return own.length === 0 ? [] : [heading, ...own.map(cellsOf)]
  })
  const end = wrap(afterword ?? sumOf(driver, rows), look.width)
  return [look.heading(server), ...preface, '', table(titles, SHARES, lines, look), LEGEND, '', ...end].join('\n')
}

function cellsOf({ what, outcomes: { driver, holdfast } }: Row): Cell[] {
  const broken = brokenPromises(holdfast)
  const text = broken.length === 0 ? holdfast.text : `NOT AS PROMISED (${broken.join('; ')}): ${holdfast.text}`
  return [
    { text: what },
    { mark: SIGNS[driver.mark], text: driver.text },
    { mark: broken.length === 0 ? SIGNS[holdfast.mark] : SIGNS.failed, text },
  ]
}

/** All calls of all rows together. */
function sumOf(driver: DriverName, rows: readonly Row[]): string {
  const of = (side: 'driver' | 'holdfast', fact: 'asked' | 'answered' | 'waiting'): number =>
    rows.reduce((sum, { outcomes }) => sum + Number(outcomes[side].facts[fact] ?? 0), 0)
  const lost = of('driver', 'asked') - of('driver', 'answered')
  const told = of('holdfast', 'asked') - of('holdfast', 'answered')
  const broken = rows.flatMap(({ outcomes }) => brokenPromises(outcomes.holdfast)).length
  const verdict =
    broken > 0
      ? `${broken} ${broken === 1 ? 'promise was' : 'promises were'} not kept: see the rows that say NOT AS PROMISED.`
      : `${told} of ${of('holdfast', 'asked')} failed: writes and COMMITs whose answer was lost. Each was told so, and none ran twice.`
  return `In all, ${lost} of ${of('driver', 'asked')} calls failed or hung with ${driver}'s own pool. With Holdfast, ${verdict}`
}

export function isAsPromised(reports: readonly Report[]): boolean {
  return reports.every(({ rows }) => rows.every(({ outcomes }) => brokenPromises(outcomes.holdfast).length === 0))
}

const READ_NEXT = `What to read next: README.md (a pool of your own), docs/errors.md (what each error means, what to do).
What to try next:  npm start -- mysql://user:password@host/db   the harmless part, on your own server
                   npm start -- --all                           with the driver mariadb, too`

/** All that a person gets to read. */
export function textOf(reports: readonly Report[], look: Look): string {
  return ['', ...reports.map((report) => `${tableOf(report, look)}\n`), READ_NEXT].join('\n')
}

export function jsonOf(reports: readonly Report[], tookMs: number): string {
  const plain = reports.map(({ driver, server, limits, rows }) => ({
    driver,
    server,
    ...(limits && { limits }),
    rows: rows.map(({ topic, what, outcomes }) => ({
      topic,
      what,
      driver: outcomes.driver,
      holdfast: { ...outcomes.holdfast, broken: brokenPromises(outcomes.holdfast) },
    })),
  }))
  return JSON.stringify({ asPromised: isAsPromised(reports), tookMs: Math.round(tookMs), reports: plain }, null, 2)
}

/** Colours for a terminal that wants them. */
export function lookFor(stream: { readonly isTTY?: boolean; readonly columns?: number }, env: NodeJS.ProcessEnv): Look {
  const width = Math.max(60, Math.min(100, stream.columns ?? 100))
  if (!stream.isTTY || env['NO_COLOR'] || env['TERM'] === 'dumb') {
    return { width, heading: (text) => text, mark: (mark) => mark, rule: (text) => text }
  }
  const paint = (code: number) => (text: string) => `\u001B[${code}m${text}\u001B[0m`
  const colours: Record<string, (text: string) => string> = {
    [SIGNS.well]: paint(32),
    [SIGNS.told]: paint(33),
    [SIGNS.failed]: paint(31),
  }
  return { width, heading: paint(1), mark: (mark) => colours[mark]?.(mark) ?? mark, rule: paint(2) }
}
