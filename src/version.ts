/** Of a server's or a package's version, whatever it is followed by; what is no number counts as 0. */
export function isBefore(version: string, minimum: string): boolean {
  const [a, b] = [version, minimum].map((each) => each.split(/[.-]/, 3).map((part) => Number(part) || 0)) as [
    number[],
    number[],
  ]
  const at = b.findIndex((part, index) => part !== a[index])
  return at >= 0 && (a[at] ?? 0) < (b[at] ?? 0)
}
