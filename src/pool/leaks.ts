import { events } from '../events.js'
import { layGhost } from './ghost.js'
import { siteOf, sqlForShow, type LeaseNote } from './lease-note.js'
import type { Lender } from './lender.js'
import type { Slot } from './slot.js'

// A silent peer must not hold up the next statement of a lease for long.
const PING_WITHIN_MS = 1_000

/** Looks after sessions while they are lent: keeps quiet ones alive, reports those that are kept too long, takes back what was lost. */
export class Leaks {
  readonly #lender: Lender
  readonly #forgotten: FinalizationRegistry<LeaseNote>

  constructor(lender: Lender) {
    this.#lender = lender
    this.#forgotten = new FinalizationRegistry((note) => this.#abandoned(note))
    lender.onSweep((now) => this.#sweep(now))
  }

  /** `lease` is only a key: when it is garbage-collected without a release, the slot is taken back. */
  watch(lease: object, note: LeaseNote): void {
    note.slot.lease = note
    this.#forgotten.register(lease, note, note)
  }

  unwatch(note: LeaseNote): void {
    this.#forgotten.unregister(note)
    if (note.slot.lease === note) note.slot.lease = undefined
  }

  #sweep(now: number): void {
    for (const slot of this.#lender.slots) {
      const note = slot.lease
      if (note === undefined || slot.place !== 'leased') continue
      if (now - workedAt(note, now) > this.#lender.options.leakAfterMs) {
        if (!note.reported) this.#report(slot, note, now, false)
        if (this.#lender.options.onLeak === 'reclaim') {
          this.#takeBack(slot, note)
          continue
        }
      }
      if (!note.busy && now - slot.heardAt > this.#lender.quietLimitMs) this.#keepAlive(slot, note)
    }
  }

  /** A lease kept through a long job: the server must not take it for idle. */
  #keepAlive(slot: Slot, note: LeaseNote): void {
    const { session } = slot
    if (note.ping !== undefined || !session?.alive) return
    const { clock } = this.#lender
    const silent = clock.after(PING_WITHIN_MS, () => session.destroy())
    note.ping = session
      .ping()
      .then(
        () => void (slot.heardAt = clock.now()),
        () => session.destroy(),
      )
      .finally(() => {
        silent.cancel()
        note.ping = undefined
      })
  }

  #abandoned(note: LeaseNote): void {
    const { slot } = note
    if (slot.lease !== note || slot.place !== 'leased') return
    if (!note.reported) this.#report(slot, note, this.#lender.clock.now(), true)
    this.#takeBack(slot, note)
  }

  #takeBack(slot: Slot, note: LeaseNote): void {
    note.abandoned = true
    this.unwatch(note)
    if (note.busy || note.ping) {
      this.#lender.ghost(slot)
      slot.session?.destroy()
      void layGhost(this.#lender, slot)
    } else this.#lender.giveBack(slot, 'dirty')
  }

  #report(slot: Slot, note: LeaseNote, now: number, abandoned: boolean): void {
    note.reported = true
    this.#lender.count('leaks')
    const pool = this.#lender.options.name
    const heldMs = Math.round(now - note.takenAt)
    const takenAt = siteOf(note)
    const { inTransaction } = note
    const lastSql = note.lastSql === undefined ? undefined : sqlForShow(note.lastSql)
    const threadId = slot.session?.threadId ?? 0
    if (events.leak.hasSubscribers) {
      events.leak.publish({ pool, threadId, heldMs, takenAt, lastSql, inTransaction, abandoned })
    }
    process.emitWarning(
      leakSentence(pool, heldMs, takenAt, lastSql, inTransaction, abandoned, this.#lender.options.onLeak),
      {
        type: 'HoldfastLeak',
        code: 'HOLDFAST_LEAK',
      },
    )
  }
}

/** Who takes rows from a stream, or waits for them, is at work, however long it takes; a lease is to be given back. */
function workedAt({ takenAt, reading }: LeaseNote, now: number): number {
  if (reading === undefined) return takenAt
  if (reading.waits || reading.rows !== reading.seen) {
    reading.seen = reading.rows
    reading.workedAt = now
  }
  return reading.workedAt
}

function leakSentence(
  pool: string,
  heldMs: number,
  takenAt: string,
  lastSql: string | undefined,
  inTransaction: boolean,
  abandoned: boolean,
  onLeak: 'warn' | 'reclaim',
): string {
  const what = abandoned
    ? 'a lease was garbage-collected without being released; its session was taken back'
    : `a lease is held for ${heldMs} ms${onLeak === 'reclaim' ? '; its session was taken back' : ''}`
  const last = lastSql === undefined ? 'it ran nothing' : `it last ran: ${lastSql}`
  return `${pool}: ${what}; it was taken at ${takenAt}; ${last}${inTransaction ? '; a transaction is open' : ''}`
}
