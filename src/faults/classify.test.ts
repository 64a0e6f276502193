import { describe, expect, test } from 'vitest'
import type { Flavour } from '../driver.js'
import { classify, type Evidence } from './classify.js'

const VERSION: Record<Flavour, string> = { mariadb: '10.11.19-MariaDB', mysql: '9.7.4' }

/** A statement that was sent whole on a session that lives; nothing came back. */
function statement(over: Partial<Evidence> & { flavour?: Flavour; version?: string } = {}): Evidence {
  const { flavour = 'mariadb', version = VERSION[flavour], ...rest } = over
  return {
    phase: 'statement',
    server: { flavour, version },
    answered: false,
    alive: true,
    hungUp: false,
    sent: true,
    writeFailed: false,
    replied: false,
    sentBytes: 100,
    ...rest,
  }
}

const lost = { alive: false, hungUp: true } as const

function connecting(over: Partial<Evidence> = {}): Evidence {
  return { ...statement({ alive: false }), phase: 'connect', ...over }
}

/** `kind session effect` */
function verdict(error: unknown, evidence: Evidence): string {
  const { kind, session, effect } = classify(error, evidence)
  return `${kind} ${session} ${effect}`
}

function answer(errno: number, message = 'no', extra: object = {}): object {
  return { errno, message, sqlState: 'HY000', ...extra }
}

describe('an answer to a statement', () => {
  test.each<[number, string, string]>([
    [1062, 'statement usable none', 'statement usable none'],
    [1064, 'statement usable none', 'statement usable none'],
    [1142, 'statement usable none', 'statement usable none'],
    [1146, 'statement usable none', 'statement usable none'],
    [1264, 'statement usable none', 'statement usable none'],
    [1406, 'statement usable none', 'statement usable none'],
    [1820, 'statement usable none', 'statement usable none'],
    [1047, 'statement usable none', 'statement usable none'],
    [45009, 'statement usable none', 'statement usable none'], // SIGNAL may use any number
    [1213, 'deadlock usable rolled-back', 'deadlock usable rolled-back'],
    [1205, 'lock-wait usable none', 'lock-wait usable none'],
    [3572, 'statement usable none', 'lock-wait usable none'],
    [1206, 'statement usable rolled-back', 'statement usable rolled-back'],
    [3101, 'statement usable none', 'deadlock usable rolled-back'],
    [1020, 'statement usable none', 'statement usable none'],
    [1180, 'statement usable unknown', 'statement usable unknown'],
    [1317, 'interrupted usable none', 'interrupted usable none'],
    [1969, 'statement-timeout usable none', 'statement usable none'],
    [3024, 'statement usable none', 'statement-timeout usable none'],
    [1290, 'read-only usable none', 'read-only usable none'],
    [1792, 'read-only usable none', 'read-only usable none'],
    [1836, 'read-only usable none', 'read-only usable none'],
    [1036, 'read-only usable none', 'read-only usable none'],
    [1226, 'quota usable none', 'quota usable none'],
    [1461, 'quota usable none', 'quota usable none'],
    [1053, 'shutdown lost none', 'shutdown lost none'],
    [1079, 'shutdown lost none', 'shutdown lost none'],
    [1153, 'packet-too-large lost none', 'packet-too-large lost none'],
    [1156, 'lost lost none', 'lost lost none'],
    [1158, 'lost lost none', 'lost lost none'],
    [1159, 'lost lost none', 'lost lost none'],
    [1160, 'lost lost unknown', 'lost lost unknown'],
    [1161, 'lost lost unknown', 'lost lost unknown'],
    [1152, 'lost lost unknown', 'lost lost unknown'],
    [1184, 'lost lost unknown', 'lost lost unknown'],
    [2006, 'lost lost unknown', 'lost lost unknown'],
    [2013, 'lost lost unknown', 'lost lost unknown'],
    [1927, 'lost lost none', 'statement usable none'],
    [3169, 'statement usable none', 'lost lost none'],
    [3032, 'statement usable none', 'shutdown lost none'],
    [4031, 'statement usable none', 'idle-closed lost none'],
  ])('%i', (errno, mariadb, mysql) => {
    expect(verdict(answer(errno), statement({ answered: true, flavour: 'mariadb' }))).toBe(mariadb)
    expect(verdict(answer(errno), statement({ answered: true, flavour: 'mysql' }))).toBe(mysql)
  })

  test("does not depend on a driver's name for the number, nor on its `fatal`", () => {
    const lies = { code: 'ER_REFERENCED_TRG_DOES_NOT_EXIST', fatal: false }
    expect(verdict(answer(4031, 'x', lies), statement({ answered: true, flavour: 'mysql' }))).toBe(
      'idle-closed lost none',
    )
    expect(verdict(answer(1317, 'x', { fatal: true }), statement({ answered: true }))).toBe('interrupted usable none')
    expect(verdict(answer(1969, 'x', { fatal: true, code: undefined }), statement({ answered: true }))).toBe(
      'statement-timeout usable none',
    )
  })

  test('1015 is read-only when InnoDB is', () => {
    const text = "Can't lock file (errno: 165 - Table is read only)"
    expect(verdict(answer(1015, text), statement({ answered: true, flavour: 'mysql' }))).toBe('read-only usable none')
    expect(verdict(answer(1015), statement({ answered: true, flavour: 'mysql' }))).toBe('statement usable none')
  })

  test.each([
    ['10.11.19-MariaDB', undefined, 'statement usable none'],
    ['10.11.19-MariaDB', true, 'snapshot usable rolled-back'],
    ['11.6.1-MariaDB', undefined, 'statement usable none'],
    ['11.6.2-MariaDB', undefined, 'snapshot usable rolled-back'],
    ['11.8.9-MariaDB-1', undefined, 'snapshot usable rolled-back'],
    ['11.8.9-MariaDB', false, 'statement usable none'],
    ['12.0.1-MariaDB', undefined, 'snapshot usable rolled-back'],
  ])('1020 on %s with snapshot isolation %s', (version, snapshotIsolation, expected) => {
    expect(verdict(answer(1020), statement({ answered: true, version, traits: { snapshotIsolation } }))).toBe(expected)
  })

  test('1205 undoes the transaction with innodb_rollback_on_timeout', () => {
    expect(verdict(answer(1205), statement({ answered: true, traits: { rollbackOnTimeout: true } }))).toBe(
      'lock-wait usable rolled-back',
    )
  })

  test('to a CALL or to several statements leaves open what was done before', () => {
    expect(verdict(answer(1062), statement({ answered: true, compound: true }))).toBe('statement usable unknown')
    expect(verdict(answer(1213), statement({ answered: true, compound: true }))).toBe('deadlock usable unknown')
    expect(verdict(answer(4031), statement({ answered: true, compound: true, flavour: 'mysql' }))).toBe(
      'idle-closed lost none',
    )
  })

  test('after which the server hung up ends the session, whatever the number', () => {
    expect(verdict(answer(1064), statement({ answered: true, ...lost }))).toBe('statement lost none')
  })
})

describe('a statement that was not answered', () => {
  test.each<[string, Partial<Evidence>, string]>([
    ['driver refused it before sending', { sent: false, sentBytes: 0 }, 'client usable none'],
    ['driver refused it and gave up the session', { sent: false, alive: false }, 'client lost none'],
    ['driver could not read the reply', { replied: true }, 'client usable unknown'],
    ['driver could not read the reply and gave up the session', { replied: true, alive: false }, 'client lost unknown'],
    ['session was seen dead before', { ...lost, sent: false, sentBytes: 0 }, 'lost lost none'],
    ['1.3 kernel refused its bytes', { ...lost, writeFailed: true }, 'lost lost none'],
    ['2.12 kernel refused the rest of it', { ...lost, writeFailed: true, sentBytes: 1e6 }, 'lost lost none'],
    ['kernel refused bytes of a local file', { ...lost, writeFailed: true, replied: true }, 'lost lost unknown'],
    ['1.5, 2.1, 2.7, 2.9 connection ended and nothing came', lost, 'lost lost unknown'],
    ['2.13 connection ended in the middle of the result', { ...lost, replied: true }, 'lost lost unknown'],
    [
      '2.10 connection ended and the limit is known',
      { ...lost, sentBytes: 2e6, traits: { maxAllowedPacket: 1e6 } },
      'packet-too-large lost none',
    ],
    [
      '2.10 kernel refused it and the limit is known',
      { ...lost, writeFailed: true, sentBytes: 2e6, traits: { maxAllowedPacket: 1e6 } },
      'packet-too-large lost none',
    ],
    [
      'a local file is larger than the limit',
      { ...lost, replied: true, sentBytes: 2e6, traits: { maxAllowedPacket: 1e6 } },
      'lost lost unknown',
    ],
    ['it was small enough', { ...lost, sentBytes: 5e5, traits: { maxAllowedPacket: 1e6 } }, 'lost lost unknown'],
  ])('%s', (_, over, expected) => {
    expect(verdict(new Error('Connection lost'), statement(over))).toBe(expected)
  })

  test('keeps the error as it was', () => {
    const error = new Error('Connection lost')
    expect(classify(error, statement(lost))).toMatchObject({ error, cause: error, message: 'Connection lost' })
    expect(classify('odd', statement(lost))).toMatchObject({ error: 'odd', message: 'odd' })
  })
})

describe('an attempt to connect', () => {
  test.each<[number, string]>([
    [1040, 'server-limit'],
    [1135, 'server-limit'],
    [1203, 'account-limit'],
    [1053, 'offline'],
    [1079, 'offline'],
    [3032, 'offline'],
    [1047, 'offline'],
    [1158, 'unreachable'],
    [1159, 'unreachable'],
    [2013, 'unreachable'],
    [1927, 'unreachable'],
    [1044, 'denied'],
    [1045, 'denied'],
    [1049, 'denied'],
    [1129, 'denied'],
    [1130, 'denied'],
    [1251, 'denied'],
    [1275, 'denied'],
    [1698, 'denied'],
    [1820, 'denied'],
    [1862, 'denied'],
    [2059, 'denied'],
    [3118, 'denied'],
    [3159, 'denied'],
    [3955, 'denied'],
    [4151, 'denied'],
  ])('answered with %i', (errno, kind) => {
    expect(verdict(answer(errno), connecting({ answered: true }))).toBe(`${kind} lost none`)
    // Before the greeting nothing is known of the server.
    expect(verdict(answer(errno), connecting({ answered: true, server: undefined }))).toBe(`${kind} lost none`)
  })

  test.each([
    ["User 'app' has exceeded the 'max_user_connections' resource (current value: 3)", 'account-limit'],
    [
      "User 'max_connections_per_hour' has exceeded the 'max_user_connections' resource (current value: 3)",
      'account-limit',
    ],
    ["User 'app' has exceeded the 'max_connections_per_hour' resource (current value: 5)", 'hourly-limit'],
    [
      "Benutzer 'app' hat die Ressourcenbeschränkung 'max_connections_per_hour' überschritten (aktueller Wert: 5)",
      'hourly-limit',
    ],
  ])('1226: %s', (message, kind) => {
    expect(verdict(answer(1226, message), connecting({ answered: true }))).toBe(`${kind} lost none`)
  })

  test.each(['ECONNREFUSED', 'ENOENT', 'ECONNRESET', 'EHOSTUNREACH', 'ENETUNREACH', 'EPIPE', 'ETIMEDOUT', 'EAI_AGAIN'])(
    'that the network ends with %s',
    (code) => {
      const error = Object.assign(new Error(code), { code, syscall: 'connect' })
      expect(verdict(error, connecting({ hungUp: true }))).toBe('unreachable lost none')
    },
  )

  test.each(['ENOTFOUND', 'EACCES'])('that cannot work: %s', (code) => {
    expect(verdict(Object.assign(new Error(code), { code, syscall: 'connect' }), connecting({ hungUp: true }))).toBe(
      'denied lost none',
    )
  })

  test.each<[string, object, Partial<Evidence>, string]>([
    ['an end within the handshake', {}, { hungUp: true }, 'unreachable'],
    [
      'an end within the TLS handshake',
      { code: 'HANDSHAKE_SSL_ERROR' },
      { hungUp: true, tls: 'handshake' },
      'unreachable',
    ],
    ['a certificate that nobody vouches for', { code: 'HANDSHAKE_SSL_ERROR' }, { tls: 'handshake' }, 'tls'],
    ['a server without TLS', { code: 'HANDSHAKE_NO_SSL_SUPPORT' }, { alive: true, tls: 'not offered' }, 'tls'],
    ['a certificate for another name', { cert: {} }, { alive: true, tls: 'established' }, 'tls'],
    ["mariadb's own look at the certificate", { errno: 45056 }, { tls: 'established' }, 'tls'],
    ['no leave to ask for the RSA key', { errno: 45044 }, {}, 'denied'],
    [
      'an authentication plugin that the driver does not know',
      { code: 'AUTH_SWITCH_PLUGIN_ERROR' },
      { alive: true },
      'denied',
    ],
  ])('%s', (_, error, over, kind) => {
    expect(verdict(error, connecting(over))).toBe(`${kind} lost none`)
  })
})
