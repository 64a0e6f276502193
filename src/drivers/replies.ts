import { errorOf, type ServerError } from './packets.js'

const HEADER_BYTES = 4
const LARGEST = 0xffffff
const ERR = 0xff
const EOF = 0xfe
const LOCAL_INFILE = 0xfb
/** COM_QUIT, COM_STMT_SEND_LONG_DATA, COM_STMT_CLOSE */
const UNANSWERED: ReadonlySet<number | undefined> = new Set([0x01, 0x18, 0x19])

/**
 * Follows commands that were written one behind the other, and the replies that come one behind the other. Packets are numbered
 * through a command and its reply, so a number that is not the next begins another reply.
 */
export class Replies {
  /** The server's refusal, when the reply that began last began with one. */
  refusal: ServerError | undefined
  /** The reply that began last asks for a local file. */
  infile = false
  /** An error that answers nothing: its number is 0. */
  farewell: ServerError | undefined
  #commands = 0
  #begun = 0
  /** The number that goes on with the reply that came last; none before the first. */
  #next = -1
  /** What came last can be the end of a reply. */
  #mayBeOver = true
  /** Bytes of the packet that came last that are still to come. */
  #left = 0
  /** A header, with the byte behind it, of which a part has come. */
  readonly #head: number[] = []

  /** Something came back for each command. */
  get areAllBegun(): boolean {
    return this.#begun >= this.#commands
  }

  wrote(chunk: Uint8Array): void {
    if (chunk[3] !== 0) return
    const length = lengthAt(chunk, 0)
    // mysql2 writes the header of a part that is as large as can be by itself.
    if (chunk.length === HEADER_BYTES ? length !== LARGEST : chunk.length !== HEADER_BYTES + length) return
    if (!UNANSWERED.has(chunk[HEADER_BYTES])) this.#commands++
  }

  /** Returns how much of the chunk was followed: all of it, or what came before a farewell. */
  hear(chunk: Buffer): number {
    let at = 0
    for (;;) {
      const passed = Math.min(this.#left, chunk.length - at)
      this.#left -= passed
      at += passed
      if (at === chunk.length) return at
      if (this.#head.length === 0 && at + HEADER_BYTES < chunk.length) {
        this.#begins(chunk, at)
        if (this.farewell) return at
        at += HEADER_BYTES
      } else this.#gather(chunk[at++] ?? 0)
    }
  }

  #gather(byte: number): void {
    const head = this.#head
    head.push(byte)
    if (head.length < HEADER_BYTES || (head.length === HEADER_BYTES && lengthAt(head, 0) > 0)) return
    this.#begins(Buffer.from(head.splice(0)), 0)
    if (this.#left > 0) this.#left--
  }

  /** Takes note of a packet, of which there is at least the first byte. */
  #begins(bytes: Buffer, at: number): void {
    const length = lengthAt(bytes, at)
    const sequence = bytes[at + 3] ?? 0
    const first = length > 0 ? bytes[at + HEADER_BYTES] : undefined
    const error = first === ERR ? errorOf(bytes.subarray(at, at + HEADER_BYTES + length)) : undefined
    if (error && sequence === 0 && this.#next !== 0) this.farewell = error
    if (sequence !== this.#next || (sequence === 1 && this.#mayBeOver)) {
      this.#begun++
      this.infile = first === LOCAL_INFILE
      this.refusal = error
    }
    this.#next = (sequence + 1) & 0xff
    this.#mayBeOver = first === ERR || (first === EOF && length < LARGEST)
    this.#left = length
  }
}

function lengthAt(bytes: ArrayLike<number>, at: number): number {
  return (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8) | ((bytes[at + 2] ?? 0) << 16)
}
