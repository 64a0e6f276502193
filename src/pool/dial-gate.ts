import type { Fault } from '../faults/fault.js'

/**
 * What a failed dial says of the next: `limit` (the server takes no more sessions now), `hourly` (each further dial makes
 * it worse), `down` (no server there now), `denied` (waiting mends nothing), `given-up` (we ended it ourselves).
 */
export type Refusal = 'limit' | 'hourly' | 'down' | 'denied' | 'given-up'

export function refusalOf(fault: Fault): Refusal {
  switch (fault.kind) {
    case 'account-limit':
    case 'server-limit':
      return 'limit'
    case 'hourly-limit':
    case 'quota':
      return 'hourly'
    case 'denied':
    case 'init':
    case 'tls':
    case 'client':
    case 'statement':
      return 'denied'
    default:
      return 'down'
  }
}

// The server frees a closed session's slot 1 to 2 ms after it hung up, at most 19 ms later (measured).
const FIRST_PAUSE_MS = 20
// Holding nothing, the next free slot is all there is to wait for; holding some, they come home by themselves.
const LONGEST_PAUSE_MS = { limitHoldingNone: 400, limitHoldingSome: 5_000, down: 400, denied: 1_000 }
// For minIdle alone nobody waits: knocking at a closed door would go on for ever, and may lock the account.
const PAUSE_FOR_NOBODY_MS = 30_000
// The hour began at some earlier dial: it is over at the latest in 60 minutes, and nobody tells when.
const HOURLY_PAUSE_MS = 300_000

/** Lets dials through: all that are wanted while they succeed; after a refusal one at a time, backed off and jittered. */
export class DialGate {
  readonly #random: () => number
  #taught = Infinity
  #last: Refusal | undefined = undefined
  #failures = 0
  #opensAt = -Infinity
  #refusedAt = -Infinity

  constructor(random: () => number) {
    this.#random = random
  }

  /** How many slots the refusals taught us that we can have. */
  get taught(): number {
    return this.#taught
  }
  /** When the next dial may be made; -Infinity when nothing speaks against it. */
  opensAt(forSomebody: boolean): number {
    return forSomebody || this.#opensAt === -Infinity ? this.#opensAt : this.#refusedAt + PAUSE_FOR_NOBODY_MS
  }
  /** On an hourly limit: no dials, and no session is given up. */
  rationed(now: number): boolean {
    return this.#last === 'hourly' && now < this.#opensAt
  }

  lets(held: number, opening: number, now: number, forSomebody: boolean): boolean {
    if (this.#last === undefined) return held < this.#taught
    return opening === 0 && now >= this.opensAt(forSomebody)
  }

  /** A dial begins, with `held` slots held before it: one above what was taught is a probe. */
  dialled(held: number): void {
    this.#taught = Math.max(this.#taught, held + 1)
  }

  opened(dialledAt: number): void {
    // A dial that was under way before the refusal says nothing against it.
    if (this.#last === 'hourly' && dialledAt <= this.#refusedAt) return
    this.#failures = 0
    this.#opensAt = -Infinity
    // What was taught stays, and rises dial by dial; nobody else's refusal is forgotten by one success.
    if (this.#last !== 'limit') this.#last = undefined
  }

  /** `held`: the slots that remain without the refused one. */
  refused(refusal: Exclude<Refusal, 'given-up'>, held: number, now: number): void {
    this.#failures = this.#last === refusal ? this.#failures + 1 : 1
    this.#last = refusal
    this.#refusedAt = now
    if (refusal === 'limit') this.#taught = held
    this.#opensAt = now + this.#pauseMs(refusal, held)
  }

  #pauseMs(refusal: Exclude<Refusal, 'given-up'>, held: number): number {
    if (refusal === 'hourly') return HOURLY_PAUSE_MS
    const longest =
      refusal !== 'limit'
        ? LONGEST_PAUSE_MS[refusal]
        : held === 0
          ? LONGEST_PAUSE_MS.limitHoldingNone
          : LONGEST_PAUSE_MS.limitHoldingSome
    const pauseMs = Math.min(longest, FIRST_PAUSE_MS * 2 ** Math.min(this.#failures - 1, 20))
    return pauseMs * (0.5 + this.#random() / 2)
  }
}
