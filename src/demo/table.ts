/** A text under a mark, or beside nothing. */
export interface Cell {
  readonly mark?: string
  readonly text: string
}

/** A heading over the rows that follow, or a row with a cell for each column. */
export type Line = string | readonly Cell[]

export interface Look {
  /** The whole table's, in characters. */
  readonly width: number
  heading(text: string): string
  mark(mark: string): string
  rule(text: string): string
}

const GAP = '  '

/** Columns share the width by `shares`; what does not fit is wrapped within its column. */
export function table(
  titles: readonly string[],
  shares: readonly number[],
  lines: readonly Line[],
  look: Look,
): string {
  const widths = divide(look.width - GAP.length * (shares.length - 1), shares)
  const rule = look.rule('─'.repeat(look.width))
  const blocks = lines.map((line) => {
    if (typeof line !== 'string') return row(line, widths, look)
    return ['', ...wrap(line, look.width).map((text) => look.heading(text))].join('\n')
  })
  const top = row(
    titles.map((text) => ({ text })),
    widths,
    { ...look, mark: (mark) => mark },
  )
  return [look.heading(top), rule, ...blocks, rule].join('\n')
}

function row(cells: readonly Cell[], widths: readonly number[], look: Look): string {
  const columns = cells.map(({ mark, text }, index) => {
    const indent = mark === undefined ? '' : ' '.repeat(mark.length + 1)
    return wrap(text, (widths[index] as number) - indent.length).map((part, at) => ({
      plain: at === 0 && mark !== undefined ? `${mark} ${part}` : indent + part,
      mark: at === 0 ? mark : undefined,
    }))
  })
  const height = Math.max(...columns.map((column) => column.length))
  return Array.from({ length: height }, (_, at) =>
    columns
      .map((column, index) => {
        const { plain, mark } = column[at] ?? { plain: '', mark: undefined }
        const padded = plain.padEnd(widths[index] as number)
        return mark === undefined ? padded : look.mark(mark) + padded.slice(mark.length)
      })
      .join(GAP)
      .trimEnd(),
  ).join('\n')
}

/** Breaks between words; a word that is longer than the line, wherever it must. */
export function wrap(text: string, width: number): string[] {
  const lines = ['']
  for (let word of text.split(/\s+/)) {
    const line = lines.at(-1) as string
    if (line !== '' && line.length + 1 + word.length <= width) {
      lines[lines.length - 1] = `${line} ${word}`
      continue
    }
    if (line !== '') lines.push('')
    for (; word.length > width; word = word.slice(width)) lines.splice(-1, 1, word.slice(0, width), '')
    lines[lines.length - 1] = word
  }
  return lines
}

function divide(width: number, shares: readonly number[]): number[] {
  const sum = shares.reduce((total, share) => total + share, 0)
  const widths = shares.map((share) => Math.floor((width * share) / sum))
  const rest = width - widths.reduce((total, one) => total + one, 0)
  return widths.map((one, index) => (index === widths.length - 1 ? one + rest : one))
}
