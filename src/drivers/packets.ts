import type { Server } from '../driver.js'

const HEADER_BYTES = 4
const PROTOCOL_VERSION = 10
const CLIENT_SSL = 0x800
const ERR = 0xff

/** What the server said in an ERR packet that we read ourselves. */
export class ServerError extends Error {
  override readonly name = 'ServerError'
  readonly errno: number
  readonly sqlState: string
  readonly sqlMessage: string

  constructor(errno: number, sqlState: string, message: string) {
    super(message)
    this.errno = errno
    this.sqlState = sqlState
    this.sqlMessage = message
  }
}

/** Of a chunk that is one whole ERR packet: its number (2 bytes), '#' and SQLSTATE (6), text. Undefined for anything else. */
export function errorOf(chunk: Buffer): ServerError | undefined {
  if (chunk[HEADER_BYTES] !== ERR || chunk.length < 13 || chunk[7] !== '#'.charCodeAt(0)) return undefined
  if (chunk.length !== HEADER_BYTES + chunk.readUIntLE(0, 3)) return undefined
  return new ServerError(chunk.readUInt16LE(5), chunk.toString('latin1', 8, 13), chunk.toString('utf8', 13))
}

/** Of Protocol::HandshakeV10. Undefined until all that is of interest has come, or when it is something else. */
export function greetingOf(packet: Buffer): { readonly server: Server; readonly offersTls: boolean } | undefined {
  const versionEnd = packet.indexOf(0, HEADER_BYTES + 1)
  // After the version and its zero: thread id (4), first part of the nonce (8), a zero, the lower half of the capabilities (2).
  const capabilities = versionEnd + 14
  if (packet[HEADER_BYTES] !== PROTOCOL_VERSION || versionEnd < 0 || packet.length < capabilities + 2) return undefined
  // MariaDB before 11 puts a version of MySQL's that replicas understand before its own.
  const version = packet.toString('latin1', HEADER_BYTES + 1, versionEnd).replace(/^5\.5\.5-(?=\d+\.\d+\.\d+-)/, '')
  const flavour = /mariadb/i.test(version) ? 'mariadb' : 'mysql'
  return { server: { flavour, version }, offersTls: (packet.readUInt16LE(capabilities) & CLIENT_SSL) !== 0 }
}

const COM_STMT_PREPARE = 0x16
const COM_STMT_SEND_LONG_DATA = 0x18
const COM_STMT_CLOSE = 0x19

/** A whole packet that has the server execute nothing. A part of one is taken for more. */
export function isPreparation(chunk: Uint8Array | string): boolean {
  const command = chunk[HEADER_BYTES]
  if (command !== COM_STMT_PREPARE && command !== COM_STMT_SEND_LONG_DATA && command !== COM_STMT_CLOSE) return false
  if (typeof chunk === 'string' || chunk[3] !== 0) return false
  // mariadb writes plain bytes for some.
  const [low = 0, middle = 0, high = 0] = chunk
  return chunk.length === HEADER_BYTES + (low | (middle << 8) | (high << 16))
}
