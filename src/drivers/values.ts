/** Both drivers read the server's number, which has no sign, as if it had one. */
export function insertIdOf(given: number | bigint | string): number | bigint {
  const id = Number(given)
  return Number.isSafeInteger(id) && id >= 0 ? id : BigInt.asUintN(64, BigInt(given))
}
