import type { Place, RetireReason } from './slot.js'
import { PLACES, Slot } from './slot.js'
import { Line, type Waiter } from './waiter.js'
import type { Finding } from './checker.js'
import { DialGate, type Refusal } from './dial-gate.js'

/** What the pool must do next. Carrying one out ends in a fact reported back to the ledger. */
export type Order =
  | { readonly do: 'open'; readonly slot: Slot }
  | { readonly do: 'check'; readonly slot: Slot; readonly how: Check }
  | { readonly do: 'lend'; readonly slot: Slot; readonly waiter: Waiter }
  | { readonly do: 'close'; readonly slot: Slot; readonly reason: RetireReason }
  | { readonly do: 'refuse'; readonly waiters: Waiter[]; readonly why: 'late' | 'refused' | 'shut' }

/** look: what the socket has seen already, for a turn of the event loop. ping, reset: a round trip. */
export type Check = 'look' | 'ping' | 'reset'

/** How a session comes home. */
export type Condition = 'clean' | 'dirty' | 'lost'

export interface LedgerOptions {
  readonly max: number
  readonly minIdle: number
  readonly idleTimeoutMs: number
  readonly maxLifetimeMs: number
  readonly trustMs: number
  readonly pingAfterMs: number
  /** From 0 to below 1; for jitter. */
  readonly random: () => number
}

/** What the server told, as far as the ledger's decisions need it. */
export interface Told {
  /** Sessions that the account may hold; Infinity when unlimited. */
  readonly accountLimit: number
  /** Sessions that the server takes from all its accounts. */
  readonly serverLimit: number
  /** Sessions that the account held when this was told, ours among them. */
  readonly accountHeld: number
  readonly waitTimeoutMs: number
}

// A session that idles past this fraction of wait_timeout may be cut by the server while it is being lent.
const SAFE_PART_OF_WAIT_TIMEOUT = 0.75
// Who shares a full account gives idle sessions back "within a second": this, and the sweep that sees it.
const CONTENDED_IDLE_MS = 600
// For how long one refusal says that others want the account's slots.
const CONTENDED_FOR_MS = 30_000
// Sessions opened together would all be due together: each gets up to this part less.
const LIFETIME_JITTER = 0.1

const NOTHING: Order[] = []

/**
 * The pool's book: where every slot is and who waits. Each method records one fact and returns the orders that follow.
 * There is no promise, timer, socket or clock in it.
 *
 * Always: the slots in all places together are no more than the ceiling; waiters are served first come, first served;
 * nobody waits while a fit slot is idle or one may be opened; idle slots are lent newest first, of those that fit without a
 * change between reading and writing.
 */
export class Ledger {
  readonly #options: LedgerOptions
  readonly #line = new Line<Waiter>()
  readonly #slots = new Set<Slot>()
  /** Newest last. */
  readonly #idle: Slot[] = []
  readonly #count: Record<Place, number>
  readonly #gate: DialGate
  #told: Told | undefined = undefined
  #stalled = 0
  #nextId = 1
  #suspectedAt = -Infinity
  #contendedUntil = -Infinity
  #shut = false

  constructor(options: LedgerOptions) {
    this.#options = options
    this.#gate = new DialGate(options.random)
    this.#count = Object.fromEntries(PLACES.map((place) => [place, 0])) as Record<Place, number>
  }

  // ---- what it knows

  get held(): number {
    return this.#slots.size
  }
  get waiting(): number {
    return this.#line.length
  }
  /** How many wait beyond those for whom there is room. */
  get queued(): number {
    const { leased, lane, closing, ghost } = this.#count
    return this.#line.length - Math.max(0, this.ceiling - leased - lane - closing - ghost)
  }
  get slots(): Iterable<Slot> {
    return this.#slots
  }
  get isShut(): boolean {
    return this.#shut
  }
  count(place: Place): number {
    return this.#count[place]
  }
  /** How many slots this pool may hold now. */
  get ceiling(): number {
    return Math.min(this.#hardCeiling, this.#gate.taught)
  }
  /** How many lanes must be emptied: for those who wait and for whom no session is being checked. */
  get claims(): number {
    return this.#line.length - this.#count.checking + this.#stalled
  }
  /** When a refused dial may be tried again; undefined when nobody waits for that. */
  get nextDialAt(): number | undefined {
    const opensAt = this.#gate.opensAt(this.#line.length > this.#supply)
    if (opensAt === -Infinity || this.#count.opening > 0) return undefined
    return this.#want() > 0 && this.held < this.#hardCeiling ? opensAt : undefined
  }

  // ---- facts

  /** The hot path: a session for whoever finds no line and a trusted idle slot. */
  lend(now: number, to: 'leased' | 'lane' = 'leased'): Slot | undefined {
    if (this.#line.length > 0) return undefined
    const slot = this.#newestIdle(to === 'lane', now)
    if (slot === undefined || this.#checkFor(slot, now) !== undefined) return undefined
    this.#move(slot, to, now)
    return slot
  }

  /** Reads could use one more session than there are. */
  wished(now: number): Order[] {
    return this.#line.length === 0 && this.#count.opening === 0 && !this.#shut && this.#mayOpen(now)
      ? [this.#open(now)]
      : NOTHING
  }

  asked(waiter: Waiter, now: number): Order[] {
    this.#line.join(waiter)
    return this.#pump(now)
  }

  /** The pool's own errand (to end a statement on the server) goes before everybody. */
  askedFirst(waiter: Waiter, now: number): Order[] {
    this.#line.joinFirst(waiter)
    return this.#pump(now)
  }

  /** It timed out, or was aborted. False when it was served or failed before. */
  withdrawn(waiter: Waiter): boolean {
    return this.#line.leave(waiter)
  }

  opened(slot: Slot, told: Told, now: number): Order[] {
    const { maxLifetimeMs, random } = this.#options
    this.#told = told
    this.#gate.opened(slot.dialledAt)
    slot.openedAt = slot.heardAt = slot.idleSince = now
    slot.expiresAt = now + maxLifetimeMs * (1 - LIFETIME_JITTER * random())
    // Whoever takes the account's last slot from others knows that it is scarce, without anybody being refused.
    if (told.accountHeld >= told.accountLimit && told.accountHeld > this.held) this.#contended(now)
    const reason = this.#dueFor(slot, now)
    return reason === undefined ? this.#home(slot, now) : this.#retire(slot, reason, now)
  }

  refused(slot: Slot, refusal: Refusal, now: number): Order[] {
    this.#remove(slot)
    if (refusal === 'given-up') return this.#pump(now)
    this.#gate.refused(refusal, this.held, now)
    if (refusal === 'limit') this.#contended(now)
    const orders: Order[] = []
    if (this.#hopeless(refusal)) this.#refuseAll('refused', orders)
    return this.#pump(now, orders)
  }

  /** A lease, or a lane that is empty, came home. */
  returned(slot: Slot, condition: Condition, now: number): Order[] {
    if (condition === 'lost') {
      this.#suspectedAt = now
      return this.#retire(slot, slot.retire ?? 'lost', now)
    }
    // Not heard from, by that: a lease can be held for long, and give back a session that died meanwhile.
    slot.idleSince = now
    const reason = this.#dueFor(slot, now)
    if (reason !== undefined) return this.#retire(slot, reason, now)
    if (condition === 'dirty') {
      this.#move(slot, 'checking', now)
      return this.#pump(now, [{ do: 'check', slot, how: 'reset' }])
    }
    return this.#home(slot, now, this.#checkFor(slot, now) === undefined)
  }

  /** The outcome of a check. */
  checked(slot: Slot, outcome: Finding, how: Check, now: number): Order[] {
    if (outcome === 'heard') slot.heardAt = now
    if (outcome === 'dead') {
      this.#suspectedAt = now
      return this.#retire(slot, how === 'reset' ? 'unclean' : 'unfit', now)
    }
    const reason = this.#dueFor(slot, now)
    return reason === undefined ? this.#home(slot, now) : this.#retire(slot, reason, now)
  }

  /** A check takes long: its waiter is looked after in another way. */
  stalled(slot: Slot, now: number): Order[] {
    if (slot.place !== 'checking' || slot.stalled) return []
    slot.stalled = true
    this.#stalled++
    return this.#pump(now)
  }

  /** A session's connection ended. Idle, it goes; lent or checked, whoever has it finds out. */
  lost(slot: Slot, now: number): Order[] {
    // What we ended ourselves says nothing about the others.
    if (slot.place === 'closing' || slot.place === 'ghost') return NOTHING
    this.#suspectedAt = now
    return slot.place === 'idle' ? this.#retire(slot, 'lost', now) : NOTHING
  }

  /** A lent session's statement was cut off while the server still runs it. */
  ghosted(slot: Slot, now: number): void {
    this.#move(slot, 'ghost', now)
  }

  /** A ghost's statement has ended on the server: now it can be closed like any other. */
  laid(slot: Slot, now: number): Order[] {
    return this.#retire(slot, slot.retire ?? 'ghost', now)
  }

  /** The server has let go. Only this frees a slot. */
  closed(slot: Slot, now: number): Order[] {
    this.#remove(slot)
    return this.#pump(now)
  }

  /** One failure teaches: sessions that were not heard from since are looked at before they are lent. */
  suspect(now: number): void {
    this.#suspectedAt = now
  }

  /** End a session's pooled life: now if it is idle, at its release if it is leased. */
  retire(slot: Slot, reason: RetireReason, now: number): Order[] {
    if (slot.place === 'idle') return this.#retire(slot, reason, now)
    slot.retire ??= reason
    return []
  }

  /** Time has passed: what grew old goes, what must be kept alive is asked. */
  swept(now: number): Order[] {
    const orders: Order[] = []
    for (const slot of [...this.#idle]) {
      const reason = this.#dueFor(slot, now) ?? this.#tooLongIdle(slot, now)
      if (reason !== undefined) this.#retire(slot, reason, now, orders)
      else if (this.#count.idle <= this.#options.minIdle && now - slot.heardAt > this.quietLimitMs) {
        this.#move(slot, 'checking', now)
        orders.push({ do: 'check', slot, how: 'ping' })
      }
    }
    return this.#pump(now, orders)
  }

  /** The pool is about to be shut: who waits is refused, but for its own errands. */
  dismissed(): Order[] {
    const waiters = this.#line.leaveAll((waiter) => !waiter.isErrand)
    return waiters.length > 0 ? [{ do: 'refuse', waiters, why: 'shut' }] : NOTHING
  }

  /** No more lending: who waits is refused, idle sessions are closed, leased ones when they come home. */
  shut(now: number): Order[] {
    this.#shut = true
    const orders: Order[] = []
    this.#refuseAll('shut', orders)
    for (const slot of [...this.#idle]) this.#retire(slot, 'drain', now, orders)
    return orders
  }

  // ---- limits of time

  /** How long an idle session is kept: always safely below the server's wait_timeout. */
  get idleLimitMs(): number {
    return Math.min(this.#options.idleTimeoutMs, this.#waitTimeoutMs * SAFE_PART_OF_WAIT_TIMEOUT)
  }

  /** How long a session that must live may be quiet before it is pinged. */
  get quietLimitMs(): number {
    return Math.min(this.#options.pingAfterMs, this.#waitTimeoutMs / 3)
  }

  get #waitTimeoutMs(): number {
    return this.#told?.waitTimeoutMs ?? Infinity
  }

  get #hardCeiling(): number {
    return Math.min(this.#options.max, this.#told?.accountLimit ?? Infinity, this.#told?.serverLimit ?? Infinity)
  }

  // ---- decisions

  #contended(now: number): void {
    this.#contendedUntil = now + CONTENDED_FOR_MS
  }

  /** Which check an idle slot needs before it is lent; undefined when it is trusted. */
  #checkFor(slot: Slot, now: number): Check | undefined {
    if (slot.heardAt < this.#suspectedAt) return 'ping'
    const quietMs = now - slot.heardAt
    if (quietMs <= this.#options.trustMs) return undefined
    return quietMs <= this.quietLimitMs ? 'look' : 'ping'
  }

  #dueFor(slot: Slot, now: number): RetireReason | undefined {
    if (this.#shut) return 'drain'
    if (slot.retire !== undefined) return slot.retire
    // The limit was lowered meanwhile.
    if (this.held - this.#count.closing > this.#hardCeiling) return 'idle'
    // On an hourly limit every dial counts: what is open is kept.
    return now >= slot.expiresAt && !this.#gate.rationed(now) ? 'lifetime' : undefined
  }

  #tooLongIdle(slot: Slot, now: number): RetireReason | undefined {
    if (this.#count.idle <= this.#options.minIdle || this.#gate.rationed(now)) return undefined
    const idleMs = now - slot.idleSince
    if (idleMs > this.idleLimitMs) return 'idle'
    // A full account must not stay full of idle sessions: others could not even ask.
    const scarce =
      now < this.#contendedUntil || this.held - this.#count.closing >= (this.#told?.accountLimit ?? Infinity)
    return scarce && idleMs > CONTENDED_IDLE_MS ? 'idle' : undefined
  }

  /** Slots that are on their way to a waiter. */
  get #supply(): number {
    return this.#count.opening + this.#count.checking - this.#stalled
  }

  /** How many slots are missing: for those who wait, and for minIdle. */
  #want(): number {
    if (this.#shut) return 0
    const supply = this.#supply
    return Math.max(this.#line.length - supply, this.#options.minIdle - this.#count.idle + this.#line.length - supply)
  }

  /** Waiting mends nothing, and nobody is going to come home. */
  #hopeless(refusal: Refusal): boolean {
    if (refusal !== 'denied' && refusal !== 'hourly') return false
    const { leased, lane, checking, opening, idle } = this.#count
    return leased + lane + checking + opening + idle === 0
  }

  #mayOpen(now: number): boolean {
    // The first session learns the limits that the others would run into.
    if (this.#told === undefined && this.#count.opening > 0) return false
    return (
      this.held < this.#hardCeiling &&
      this.#gate.lets(this.held, this.#count.opening, now, this.#line.length > this.#supply)
    )
  }

  /** Serve, check and open until nobody is left who could be helped. */
  #pump(now: number, orders: Order[] = []): Order[] {
    for (let waiter = this.#firstWaiter(now, orders); waiter && this.#idle.length > 0;) {
      const slot = this.#idle[this.#idle.length - 1] as Slot
      const how = this.#checkFor(slot, now)
      if (how === undefined) {
        this.#lendTo(waiter, slot, now, orders)
        waiter = this.#firstWaiter(now, orders)
      } else if (this.#supply < this.#line.length) {
        this.#move(slot, 'checking', now)
        orders.push({ do: 'check', slot, how })
      } else break
    }
    while (this.#want() > 0 && this.#mayOpen(now)) orders.push(this.#open(now))
    if (this.#line.length > 0 && this.#gate.rationed(now) && this.#hopeless('hourly'))
      this.#refuseAll('refused', orders)
    return orders
  }

  #open(now: number): Order {
    const slot = new Slot(this.#nextId++)
    slot.dialledAt = now
    this.#gate.dialled(this.held)
    this.#slots.add(slot)
    this.#count.opening++
    return { do: 'open', slot }
  }

  /** Of those that need no change from reading to writing or back, if there is a trusted one; else of all. */
  #newestIdle(readOnly: boolean, now: number): Slot | undefined {
    const newest = this.#idle[this.#idle.length - 1]
    if (newest === undefined || newest.readOnly === readOnly) return newest
    for (let at = this.#idle.length - 2; at >= 0; at--) {
      const slot = this.#idle[at] as Slot
      if (slot.readOnly === readOnly && this.#checkFor(slot, now) === undefined) return slot
    }
    return newest
  }

  /** The first in line who may still be served; those before, past their deadline or aborted, leave with an order. */
  #firstWaiter(now: number, orders: Order[]): Waiter | undefined {
    for (;;) {
      const waiter = this.#line.first
      if (waiter === undefined || (waiter.deadline > now && !waiter.signal?.aborted)) return waiter
      this.#line.leave(waiter)
      const last = orders.at(-1)
      // A crowd that is late together is one order.
      if (last?.do === 'refuse' && last.why === 'late') last.waiters.push(waiter)
      else orders.push({ do: 'refuse', waiters: [waiter], why: 'late' })
    }
  }

  #lendTo(waiter: Waiter, slot: Slot, now: number, orders: Order[]): void {
    this.#line.leave(waiter)
    this.#move(slot, waiter.forLane ? 'lane' : 'leased', now)
    orders.push({ do: 'lend', slot, waiter })
  }

  /** To the first who waits, if it is fit, or to rest. */
  #home(slot: Slot, now: number, isFit = true): Order[] {
    if (this.#line.length === 0) {
      this.#move(slot, 'idle', now)
      return this.#want() > 0 ? this.#pump(now) : NOTHING
    }
    const orders: Order[] = []
    const waiter = this.#firstWaiter(now, orders)
    if (waiter && isFit) this.#lendTo(waiter, slot, now, orders)
    else this.#move(slot, 'idle', now)
    return this.#line.length === 0 ? orders : this.#pump(now, orders)
  }

  #retire(slot: Slot, reason: RetireReason, now: number, orders: Order[] = []): Order[] {
    this.#move(slot, 'closing', now)
    orders.push({ do: 'close', slot, reason })
    return this.#pump(now, orders)
  }

  #refuseAll(why: 'refused' | 'shut', orders: Order[]): void {
    if (this.#line.length > 0) orders.push({ do: 'refuse', waiters: this.#line.leaveAll(), why })
  }

  // ---- the one mover

  #move(slot: Slot, to: Place, now: number): void {
    const from = slot.place
    if (from === 'idle') {
      // Nearly always the newest.
      const at = this.#idle.lastIndexOf(slot)
      if (at === this.#idle.length - 1) this.#idle.pop()
      else this.#idle.splice(at, 1)
    } else if (from === 'checking' && slot.stalled) {
      slot.stalled = false
      this.#stalled--
    }
    this.#count[from]--
    this.#count[to]++
    slot.place = to
    if (to === 'idle') this.#idle.push(slot)
    else if (to === 'leased' || to === 'lane') slot.leasedAt = now
    if (slot.permit) slot.permit.idle = to === 'idle'
  }

  #remove(slot: Slot): void {
    if (!this.#slots.delete(slot)) return
    if (slot.stalled) this.#stalled--
    this.#count[slot.place]--
    // Cut off by a drain while it was lent: it will not be taken back.
    slot.place = 'closing'
  }
}
