import type { Server, ServerTraits } from '../driver.js'
import { meaningOf, refusalOf } from './codes.js'
import { isBefore } from '../version.js'
import { type Effect, Fault, type FaultKind } from './fault.js'

/** What the connection itself shows about a failure, whatever the driver makes of it. */
export interface Evidence {
  readonly phase: 'connect' | 'statement'
  /** Known from the greeting on. */
  readonly server?: Server | undefined
  /** The error is an ERR packet: the server's own answer, with its number and SQLSTATE. */
  readonly answered: boolean
  /** The socket is whole: neither ended, nor failed, nor dropped by us. */
  readonly alive: boolean
  /** The network, the peer or the session's holder ended the connection; not the driver. */
  readonly hungUp: boolean
  /** Something was handed to the kernel that the server may execute: more than a PREPARE. */
  readonly sent: boolean
  /** The kernel refused bytes of this statement: the server cannot have had all of it. */
  readonly writeFailed: boolean
  /** Something came back after the last byte that was sent. */
  readonly replied: boolean
  /** Bytes of the command that was written last, with its packets' headers and perhaps a small command before it. */
  readonly sentBytes: number
  /**
   * The text holds several statements, or calls a procedure: when it fails, what stood before the part that failed may
   * have been done, and committed.
   */
  readonly compound?: boolean
  /** How far TLS got, if it was asked for. */
  readonly tls?: 'not offered' | 'handshake' | 'established' | undefined
  readonly traits?: ServerTraits | undefined
}

/** Headers, and a COM_STMT_CLOSE, which has no reply: not a part of the statement. */
const SLACK_BYTES = 1024

interface Failure {
  readonly errno: number
  readonly code: string
  readonly message: string
}

/**
 * What a failure means. Decided by what was written and read, by the server's flavour and by its error number; never by a
 * driver's name for the number, nor by its `fatal` (facts/errors.md, section 0, shows why).
 */
export function classify(error: unknown, evidence: Evidence): Fault {
  const failure = failureOf(error)
  return evidence.phase === 'connect'
    ? classifyConnect(error, failure, evidence)
    : classifyStatement(error, failure, evidence)
}

function classifyStatement(error: unknown, failure: Failure, evidence: Evidence): Fault {
  const { alive, hungUp, sent, replied, sentBytes, traits } = evidence
  if (evidence.answered) return classifyAnswer(error, failure, evidence)
  if (
    hungUp &&
    !replied &&
    traits?.maxAllowedPacket !== undefined &&
    sentBytes > traits.maxAllowedPacket + SLACK_BYTES
  ) {
    return new Fault('packet-too-large', 'lost', 'none', error)
  }
  // When nobody else ended it, the driver failed: over the values before it sent them, or over the reply.
  const kind = hungUp ? 'lost' : 'client'
  const isUndone = !sent || (evidence.writeFailed && !replied)
  return new Fault(kind, alive ? 'usable' : 'lost', isUndone ? 'none' : 'unknown', error)
}

function classifyAnswer(error: unknown, { errno, message }: Failure, evidence: Evidence): Fault {
  const { server, traits } = evidence
  let kind: FaultKind = 'statement'
  let effect: Effect = 'none'
  let lost = !evidence.alive
  const meaning = meaningOf(errno, message, server?.flavour)
  if (meaning) {
    kind = meaning.kind
    effect = meaning.effect ?? 'none'
    lost ||= meaning.lost === true
  } else if (
    errno === 1020 &&
    server?.flavour === 'mariadb' &&
    (traits?.snapshotIsolation ?? !isBefore(server.version, '11.6.2'))
  ) {
    kind = 'snapshot'
    effect = 'rolled-back'
  }
  if (errno === 1205 && traits?.rollbackOnTimeout) effect = 'rolled-back'
  // 4031 and 1153 stand for a statement that was never read; any other answer may come from the second statement of a text.
  const wasRead = kind !== 'idle-closed' && kind !== 'packet-too-large'
  if (evidence.compound && wasRead) effect = 'unknown'
  return new Fault(kind, lost ? 'lost' : 'usable', effect, error)
}

function classifyConnect(error: unknown, failure: Failure, evidence: Evidence): Fault {
  return new Fault(kindOfRefusal(error, failure, evidence), 'lost', 'none', error)
}

function kindOfRefusal(error: unknown, { errno, code, message }: Failure, evidence: Evidence): FaultKind {
  if (evidence.answered) return refusalOf(errno, message)
  if (evidence.tls === 'not offered') return 'tls'
  // Node's own names for what the resolver and the kernel will not do later either.
  if (code === 'ENOTFOUND' || code === 'EACCES' || code === 'EPERM' || code === 'EINVAL') return 'denied'
  if (evidence.hungUp) return 'unreachable'
  // The driver itself would not go on: a certificate that it does not trust, an authentication plugin that it does not know.
  return evidence.tls === 'handshake' || isCertificateProblem(error) ? 'tls' : 'denied'
}

/** `tls.checkServerIdentity` puts the certificate into its error; the connector says it in numbers of its own. */
function isCertificateProblem(error: unknown): boolean {
  if (typeof error !== 'object' || error === null) return false
  return 'cert' in error || ('errno' in error && TLS_ERRORS_OF_MARIADB.has(error.errno))
}

/** ER_SERVER_SSL_DISABLED, ER_SELF_SIGNED..., ER_TLS_IDENTITY_ERROR of mariadb 3.5, which settles them after the TLS handshake. */
const TLS_ERRORS_OF_MARIADB: ReadonlySet<unknown> = new Set([45023, 45056, 45057, 45059, 45062, 45063])

function failureOf(error: unknown): Failure {
  const { errno, code, message } = (typeof error === 'object' && error !== null ? error : {}) as Record<string, unknown>
  return {
    errno: typeof errno === 'number' ? errno : 0,
    code: typeof code === 'string' ? code : '',
    message: typeof message === 'string' ? message : '',
  }
}
