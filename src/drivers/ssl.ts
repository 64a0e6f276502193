/**
 * `true` means an object without demands to both drivers. A copy, since both write their defaults into it; one for all connects,
 * since mysql2 keeps the TLS context and session by the object.
 */
export function sslOf(ssl: boolean | string | object | undefined): string | object | undefined {
  if (ssl === undefined || ssl === false) return undefined
  return typeof ssl === 'string' ? ssl : { ...(ssl === true ? {} : ssl) }
}
