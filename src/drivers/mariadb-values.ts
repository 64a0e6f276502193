import type { Row } from '../driver.js'

/** A column as mariadb describes it. */
export interface Column {
  readonly columnType: number
  readonly flags: number
  name(): string
}

const BIGINT = 8
const SET_FLAG = 0x800

/**
 * Gives BIGINT and SET columns the values that mysql2 gives: a number as far as that is exact, a string beyond; and a string
 * with commas. mariadb's own `supportBigNumbers` does the first, but makes numbers of DECIMAL too, which loses digits.
 * Undefined when there is nothing to do. Rows nested by table are left alone.
 */
export function plainValues(columns: readonly Column[]): ((row: Row) => void) | undefined {
  const indexes = columns.flatMap((column, index) =>
    column.columnType === BIGINT || (column.flags & SET_FLAG) !== 0 ? [index] : [],
  )
  if (indexes.length === 0) return undefined
  const names = indexes.map((index) => columns[index]?.name() ?? '')
  return (row) => {
    for (const key of Array.isArray(row) ? indexes : names) {
      const value: unknown = row[key]
      if (typeof value === 'bigint') row[key] = exact(value)
      else if (Array.isArray(value)) row[key] = value.join(',')
    }
  }
}

function exact(value: bigint): number | string {
  const number = Number(value)
  return Number.isSafeInteger(number) ? number : String(value)
}
