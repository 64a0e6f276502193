import type { Standing } from './contest.js'

export interface Column {
  readonly key: string
  readonly head: string
  readonly digits: number
  /** Show beside it how it compares with the first row. */
  readonly ratio?: boolean
}

export interface Table {
  readonly title: string
  readonly columns: readonly Column[]
  readonly rows: readonly Standing[]
  readonly targets?: readonly Target[]
  /** What the numbers say, and what was not equal. */
  readonly notes: readonly string[]
}

/** What was set out to be reached. */
export interface Target {
  readonly what: string
  readonly value: number
  readonly bound: 'at least' | 'at most'
  readonly limit: number
  readonly isKept: boolean
}

export function target(what: string, value: number, bound: Target['bound'], limit: number): Target {
  return { what, value, bound, limit, isKept: bound === 'at least' ? value >= limit : value <= limit }
}

export const WIDTH = 100
const RATIO_WIDTH = 8

export function render(table: Table, colours: boolean): string {
  const bold = (text: string): string => (colours ? `\x1b[1m${text}\x1b[22m` : text)
  const dim = (text: string): string => (colours ? `\x1b[2m${text}\x1b[22m` : text)
  const widths = table.columns.map((column) =>
    Math.max(column.head.length, ...table.rows.map((row) => cell(row.values[column.key], column.digits).length)),
  )
  const head = table.columns
    .map((column, at) => `  ${column.head.padStart(widths[at] as number)}${gap(column)}`)
    .join('')
  const nameWidth = Math.max(...table.rows.map((row) => row.name.length))
  const lines = table.rows.map((row) => {
    const cells = table.columns.map((column, at) => {
      const value = cell(row.values[column.key], column.digits).padStart(widths[at] as number)
      return `  ${value}${column.ratio ? dim(ratioCell(row.ratios[column.key])) : ''}`
    })
    const name = row.name.padEnd(nameWidth)
    return `  ${row.name.startsWith('Holdfast') ? bold(name) : name}${cells.join('')}`
  })
  const targets = (table.targets ?? []).map(
    ({ what, value, bound, limit, isKept }) =>
      `${what} ${cell(value, 2)}; ${bound} ${limit} is the target: ${isKept ? 'kept' : 'MISSED'}.`,
  )
  const notes = [...targets, ...table.notes].flatMap((note) =>
    wrap(note, WIDTH - 4).map((line, at) => `${at === 0 ? '  * ' : '    '}${line}`),
  )
  return [bold(table.title), dim(`  ${' '.repeat(nameWidth)}${head}`), ...lines, ...notes].join('\n')
}

function gap(column: Column): string {
  return column.ratio ? ' '.repeat(RATIO_WIDTH) : ''
}

/** NaN has become null on its way between processes. */
function cell(value: number | null | undefined, digits: number): string {
  if (value === undefined || value === null || Number.isNaN(value)) return '-'
  const [whole = '', fraction] = value.toFixed(digits).split('.')
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ' ')
  return fraction === undefined ? grouped : `${grouped}.${fraction}`
}

function ratioCell(ratio: number | null | undefined): string {
  const text =
    ratio === undefined || ratio === null || Number.isNaN(ratio) ? '' : `${ratio.toFixed(ratio < 9.995 ? 2 : 1)}x`
  return text.padStart(RATIO_WIDTH)
}

export function wrap(text: string, width: number): string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line)
      line = word
    } else line = line === '' ? word : `${line} ${word}`
  }
  return [...lines, line]
}
