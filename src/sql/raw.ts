/** mysql2's `raw()`, and whatever else brings SQL of its own: it comes into the statement after its text was judged. */
export function bringsSql(values: unknown): boolean {
  if (typeof values !== 'object' || values === null) return false
  if (!Array.isArray(values)) return isRaw(values) || Object.values(values).some(isRaw)
  for (const value of values) {
    if (typeof value === 'object' && value !== null && (isRaw(value) || Object.values(value as object).some(isRaw)))
      return true
  }
  return false
}

function isRaw(value: unknown): boolean {
  return typeof (value as { toSqlString?: unknown } | null | undefined)?.toSqlString === 'function'
}
