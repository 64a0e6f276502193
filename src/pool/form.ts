import type { Read } from './read.js'
import { Line } from './waiter.js'

/** Who stands behind others on a lane waits no longer than this for what they are expected to take on the server. */
export const LANE_WAIT_MS = 5

// A result that takes that much of the wire is slow whatever the server thinks.
const LARGE_BYTES = 256 * 1024
// Replies that come in one chunk seem to have taken no time. A server takes at least about this for a point read.
export const LEAST_MS = 0.02
// In company, who comes first in a chunk of answers seems to have taken the time of all: only the mean of many is true.
const WEIGHT = 0.02
// Alone, one that took longer may have met a pause of the server's.
const WEIGHT_MORE = 0.1
// But what is quick again should not go on alone for long.
const WEIGHT_LESS = 0.5
// A server that stood still once must not make slow what it happened to be at.
const MOST_IN_COMPANY_MS = 4 * LANE_WAIT_MS
const KEPT_FORMS = 2_000

/** The statements that differ by their literals only, and what one of them is expected to take on the server. */
export class Form {
  /** The first text that was seen: it may hold literals. */
  readonly sql: string
  /** Undefined until one was seen to its end, or for long. */
  ms: number | undefined = undefined
  isLarge = false
  /** It was known as quick, until one was not. */
  isInDoubt = false
  /** The server refused it on a READ ONLY session: it writes. */
  writes = false
  /** The first of them, while it runs; the others wait for what it teaches. */
  trial: Read | undefined = undefined
  /** For that, or for a session when it is slow. */
  readonly waiting: Line<Read> = new Line<Read>()
  /** How many sessions its slow ones have, or stand in line for. */
  running = 0

  constructor(sql: string) {
    this.sql = sql
  }

  get isSeen(): boolean {
    return this.ms !== undefined
  }

  /** Others may stand behind it. */
  get isQuick(): boolean {
    return this.ms !== undefined && this.ms <= LANE_WAIT_MS && !this.isLarge
  }

  /** One of them runs for so long already. Should the form be known as quick, it must be tried once more, alone. */
  overran(ms: number): void {
    this.isInDoubt = this.isQuick
    if (this.isQuick) this.ms = undefined
    else this.ms ??= ms
  }

  learn(ms: number, bytes: number, alone: boolean): void {
    this.isInDoubt = false
    const seen = Math.max(alone ? ms : Math.min(ms, MOST_IN_COMPANY_MS), LEAST_MS)
    if (this.ms === undefined) this.ms = seen
    else this.ms += (seen - this.ms) * (!alone ? WEIGHT : seen < this.ms ? WEIGHT_LESS : WEIGHT_MORE)
    if (alone || bytes > LARGE_BYTES) this.isLarge = bytes > LARGE_BYTES
  }
}

/** The forms that came up lately: a generation that is full becomes the old one, and what is found there moves up. */
export class Forms {
  #young = new Map<number, Form>()
  #old = new Map<number, Form>()

  of(hash: number, sql: string): Form {
    const young = this.#young.get(hash)
    if (young !== undefined) return young
    const form = this.#old.get(hash) ?? new Form(sql)
    if (this.#young.size >= KEPT_FORMS / 2) {
      this.#old = this.#young
      this.#young = new Map()
    }
    this.#young.set(hash, form)
    return form
  }
}
