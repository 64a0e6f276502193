import type { Answer, Result } from '../driver.js'
import { toFault, type Fault } from '../faults/fault.js'
import { LANE_WAIT_MS, type Form } from './form.js'
import type { Read } from './read.js'
import type { RoundTrip } from './round-trip.js'
import type { Slot } from './slot.js'

// With more to do on each lane, an idle session is made one more.
const LIGHT_MS = 1

/** What a lane reports to. */
interface Host {
  readonly now: () => number
  readonly roundTrip: RoundTrip
  answered(flight: Flight, result: Result, tookMs: number, bytes: number, now: number): void
  failed(flight: Flight, fault: Fault, tookMs: number, now: number): void
}

/** One read under way on one lane. */
export class Flight implements Answer {
  behind: Flight | undefined = undefined
  isOver = false
  /** Its read is under way, or waits, elsewhere too. */
  isMoved = false
  /** It takes longer than it should. */
  hasOverrun = false
  /** It was the one that ran, or was about to, when it ended. */
  wasHead = false
  readonly lane: Lane
  readonly read: Read
  readonly sentAt: number
  readonly expectMs: number
  /** Nobody was under way when it was sent. */
  readonly isFirst: boolean

  constructor(lane: Lane, read: Read, sentAt: number, isFirst: boolean) {
    this.lane = lane
    this.read = read
    this.sentAt = sentAt
    this.expectMs = read.form.ms ?? 0
    this.isFirst = isFirst
  }

  resolve(result: Result): void {
    this.lane.resolved(this, result)
  }

  reject(fault: unknown): void {
    this.lane.rejected(this, toFault(fault))
  }
}

/** A session that several reads share, sent one behind the other without waiting. */
export class Lane {
  readonly slot: Slot
  /** For one read that nobody may stand behind. */
  readonly isSolo: boolean
  /** Reads may still join. */
  isOpen: boolean
  /** Somebody waits for its session. */
  isClaimed = false
  /** It counts among those that are slow, for this form. */
  slow: Form | undefined = undefined
  /** Its session is gone, or is no longer ours. */
  isOver = false
  depth = 0
  /** Called when nothing is under way any more. */
  onEmpty: (() => void) | undefined = undefined
  /** What the reads under way are expected to take. */
  backlogMs = 0
  /** When the server last turned to the read that runs now. */
  #turnedAt: number
  #head: Flight | undefined = undefined
  #tail: Flight | undefined = undefined
  #received: number
  /** The last byte that was seen, and when that was. */
  #heard = { bytes: -1, at: 0 }
  #patience = 1
  readonly #host: Host

  constructor(host: Host, slot: Slot, isSolo: boolean) {
    this.slot = slot
    this.isSolo = isSolo
    this.isOpen = !isSolo
    this.#host = host
    this.#turnedAt = -Infinity
    this.#received = slot.session?.received ?? 0
  }

  /** Expected to be running. */
  get head(): Flight | undefined {
    return this.#head
  }

  /** No other session would be of help. */
  get isLight(): boolean {
    return this.backlogMs <= LIGHT_MS + this.slot.roundTripMs
  }

  /** What is under way to the server and back takes none of its time. */
  get hasRoom(): boolean {
    return this.backlogMs <= LANE_WAIT_MS + this.slot.roundTripMs
  }

  /** For how long the server has been at the head. */
  runningMs(now: number): number {
    return this.#head === undefined ? 0 : now - this.#beganAt(this.#head)
  }

  send(read: Read, now: number): void {
    const flight = new Flight(this, read, now, this.depth === 0)
    if (this.#tail) this.#tail.behind = flight
    else this.#head = flight
    this.#tail = flight
    this.depth++
    this.backlogMs += flight.expectMs
    read.flights++
    this.slot.session?.pipe?.(read.statement, flight)
  }

  /** Since the head was sent, and for so long, not a byte has come. Then once more after twice as long, and so on. */
  isSilent(now: number, forMs: number): boolean {
    const bytes = this.slot.session?.received ?? 0
    if (bytes !== this.#heard.bytes || this.#heard.at === 0) this.#heard = { bytes, at: now }
    if (now - Math.max(this.#heard.at, this.#head?.sentAt ?? now) < forMs * this.#patience) return false
    this.#patience *= 2
    return true
  }

  *flights(): Generator<Flight> {
    for (let flight = this.#head; flight; flight = flight.behind) if (!flight.isOver) yield flight
  }

  /** @internal */
  resolved(flight: Flight, result: Result): void {
    if (flight.isOver) return
    const now = this.#host.now()
    const { slot } = this
    slot.heardAt = now
    if (flight.isFirst) {
      slot.roundTripMs = Math.min(slot.roundTripMs, now - flight.sentAt)
      this.#host.roundTrip.took(now - flight.sentAt, flight.read.form.isQuick && !flight.hasOverrun)
    }
    const tookMs = now - this.#beganAt(flight)
    const received = slot.session?.received ?? 0
    const bytes = received - this.#received
    this.#received = received
    this.#turnedAt = now
    this.#leave(flight)
    this.#host.answered(flight, result, tookMs, bytes, now)
  }

  /** @internal */
  rejected(flight: Flight, fault: Fault): void {
    if (flight.isOver) return
    const now = this.#host.now()
    const tookMs = now - this.#beganAt(flight)
    flight.wasHead = flight === this.#head
    if (flight.wasHead) this.#turnedAt = now
    this.#received = this.slot.session?.received ?? 0
    this.#leave(flight)
    this.#host.failed(flight, fault, tookMs, now)
  }

  #beganAt(flight: Flight): number {
    return Math.max(flight.sentAt + this.#host.roundTrip.ms, this.#turnedAt)
  }

  /** Answers come in the order of the statements, but a driver may tell of them in another. */
  #leave(flight: Flight): void {
    flight.isOver = true
    flight.read.flights--
    this.depth--
    this.backlogMs -= flight.expectMs
    while (this.#head?.isOver) {
      const { behind } = this.#head
      // Linked, flights that are long over would keep alive all that came after them.
      this.#head.behind = undefined
      this.#head = behind
    }
    if (this.#head === undefined) {
      this.#tail = undefined
      this.backlogMs = 0
    }
  }
}
