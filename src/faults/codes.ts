import type { Flavour } from '../driver.js'
import type { Effect, FaultKind } from './fault.js'

/** What an error number of the server says, where it says more than "this statement was refused". */
export interface Meaning {
  readonly kind: FaultKind
  /** The server hangs up after this answer. */
  readonly lost?: true
  /** Where it is not 'none', as it is for every answer that refuses a statement. */
  readonly effect?: Effect
}

/**
 * Answers to a statement. Measured on MariaDB 10.11 and 11.8 and MySQL 9.7 (facts/errors.md) unless a line says otherwise.
 */
const statementMeanings: ReadonlyMap<number, Meaning> = new Map<number, Meaning>([
  [1213, { kind: 'deadlock', effect: 'rolled-back' }],
  [1205, { kind: 'lock-wait' }],
  [1317, { kind: 'interrupted' }],
  [1290, { kind: 'read-only' }],
  [1792, { kind: 'read-only' }],
  [1836, { kind: 'read-only' }],
  [1036, { kind: 'read-only' }], // how MariaDB started with --innodb-read-only refuses DML
  [1226, { kind: 'quota' }],
  [1461, { kind: 'quota' }],
  // InnoDB's lock table is full: it rolls the whole transaction back (by its source, ha_innodb.cc; not measured).
  [1206, { kind: 'statement', effect: 'rolled-back' }],
  // An error in the middle of COMMIT: the storage engine and the binary log may disagree (by the manual; not measured).
  [1180, { kind: 'statement', effect: 'unknown' }],
  [1053, { kind: 'shutdown', lost: true }],
  [1079, { kind: 'shutdown', lost: true }],
  [1153, { kind: 'packet-too-large', lost: true }],
  // The server could not read the statement to its end.
  [1156, { kind: 'lost', lost: true }],
  [1157, { kind: 'lost', lost: true }],
  [1158, { kind: 'lost', lost: true }],
  [1159, { kind: 'lost', lost: true }],
  // It could not write the result: what gave the result may well have been done.
  [1160, { kind: 'lost', lost: true, effect: 'unknown' }],
  [1161, { kind: 'lost', lost: true, effect: 'unknown' }],
  [1152, { kind: 'lost', lost: true, effect: 'unknown' }],
  [1184, { kind: 'lost', lost: true, effect: 'unknown' }],
  // Client-side numbers never come from a server, but proxies answer with them when they have lost theirs.
  [2006, { kind: 'lost', lost: true, effect: 'unknown' }],
  [2013, { kind: 'lost', lost: true, effect: 'unknown' }],
])

const statementMeaningsOf: Readonly<Record<Flavour, ReadonlyMap<number, Meaning>>> = {
  mariadb: new Map<number, Meaning>([
    [1969, { kind: 'statement-timeout' }], // max_statement_time
    [1927, { kind: 'lost', lost: true }], // KILL; hardly ever reaches the client
  ]),
  mysql: new Map<number, Meaning>([
    [3024, { kind: 'statement-timeout' }], // max_execution_time
    [3572, { kind: 'lock-wait' }], // NOWAIT; MariaDB says 1205
    [4031, { kind: 'idle-closed', lost: true }], // a trigger's error on MariaDB
    [3032, { kind: 'shutdown', lost: true }], // offline_mode
    [3169, { kind: 'lost', lost: true }], // KILL (by the manual; not measured)
    // Group Replication refuses the transaction at COMMIT and rolls it back (by the manual; not measured).
    [3101, { kind: 'deadlock', effect: 'rolled-back' }],
  ]),
}

/** Answers to an attempt to connect. All others say that waiting does not help: 1045, 1044, 1049, 1129, 1130, 1862, 3118, 4151 ... */
const connectMeanings: ReadonlyMap<number, FaultKind> = new Map<number, FaultKind>([
  [1040, 'server-limit'],
  [1135, 'server-limit'], // no thread left for one more connection
  [1203, 'account-limit'],
  [1053, 'offline'],
  [1079, 'offline'],
  [3032, 'offline'],
  [1047, 'offline'], // a Galera node that is not ready (by the manual; not measured)
  // The server, or a proxy before it, gave up on the conversation.
  [1152, 'unreachable'],
  [1158, 'unreachable'],
  [1159, 'unreachable'],
  [1160, 'unreachable'],
  [1161, 'unreachable'],
  [1184, 'unreachable'],
  [1927, 'unreachable'],
  [2006, 'unreachable'],
  [2013, 'unreachable'],
])

/** An answer to a statement; undefined for one that just refuses it. */
export function meaningOf(errno: number, message: string, flavour: Flavour | undefined): Meaning | undefined {
  // MySQL started with --innodb-read-only: "Can't lock file (errno: 165 - Table is read only)".
  if (errno === 1015 && message.includes('165')) return { kind: 'read-only' }
  return (flavour && statementMeaningsOf[flavour].get(errno)) ?? statementMeanings.get(errno)
}

/** An answer to an attempt to connect. */
export function refusalOf(errno: number, message: string): FaultKind {
  if (errno === 1226) return resourceOf(message).endsWith('_per_hour') ? 'hourly-limit' : 'account-limit'
  return connectMeanings.get(errno) ?? 'denied'
}

/** `User 'app' has exceeded the 'max_user_connections' resource (current value: 3)`, in the language of the server. */
function resourceOf(message: string): string {
  return [...message.matchAll(/'([^']*)'/g)].at(-1)?.[1] ?? ''
}
