/**
 * What a failure was. The first group is a server's answer on a session that lives on; the second ended the session; the
 * third kept one from being opened.
 */
export type FaultKind =
  | 'statement' // the server refused the statement (1062, 1064, 1146 ...)
  | 'deadlock' // 1213: the whole transaction was undone
  | 'snapshot' // 1020 under innodb_snapshot_isolation: the whole transaction was undone
  | 'lock-wait' // 1205, 3572
  | 'interrupted' // 1317: KILL QUERY
  | 'statement-timeout' // 1969 (MariaDB), 3024 (MySQL)
  | 'read-only' // 1290, 1792, 1836: the server, or the transaction, takes no writes
  | 'quota' // 1226 on queries or updates per hour, 1461: a limit that a statement met
  | 'client' // the driver refused the arguments; nothing was sent
  | 'lost' // the connection ended
  | 'idle-closed' // 4031 (MySQL): ended after wait_timeout
  | 'shutdown' // 1053, 1079: the server is going down
  | 'packet-too-large' // 1153, or cut off while sending more than max_allowed_packet
  | 'account-limit' // 1226 on max_user_connections, 1203
  | 'server-limit' // 1040: max_connections
  | 'hourly-limit' // 1226 on max_connections_per_hour
  | 'denied' // 1045, 1044, 1049, 1129, 1130, 1862, 3118, 4151 ...: waiting does not mend it
  | 'offline' // 3032, 1053 while connecting: up again soon
  | 'unreachable' // no server there now: ECONNREFUSED, a reset or an end within the handshake, EAI_AGAIN ...
  | 'connect-timeout' // no answer within connectTimeoutMs
  | 'init' // sessionInit failed: waiting does not mend it
  | 'tls' // certificate or TLS settings do not fit: waiting does not mend it

/**
 * What the server may have done with the work that failed: nothing; undone all that the transaction had done; or
 * there is no telling.
 */
export type Effect = 'none' | 'rolled-back' | 'unknown'

/** A classified failure. Whoever catches it decides by these fields, never by a driver's `code` or `fatal`. */
export class Fault extends Error {
  override readonly name = 'Fault'
  readonly kind: FaultKind
  readonly session: 'usable' | 'lost'
  readonly effect: Effect
  /** What the driver threw, as it threw it. */
  readonly error: unknown

  constructor(kind: FaultKind, session: 'usable' | 'lost', effect: Effect, error: unknown) {
    super(error instanceof Error ? error.message : String(error), { cause: error })
    this.kind = kind
    this.session = session
    this.effect = effect
    this.error = error
  }
}

/** A driver of the user's own may reject with anything: what is no Fault says nothing, so the worst is assumed. */
export function toFault(error: unknown): Fault {
  return error instanceof Fault ? error : new Fault('lost', 'lost', 'unknown', error)
}
