import type { Budget } from '../budget.js'
import type { Clock, Timer } from '../clock.js'
import type { Driver } from '../driver.js'
import { HoldfastError } from '../errors.js'
import { events } from '../events.js'
import type { Effect, Fault } from '../faults/fault.js'
import type { Stats } from '../stats.js'
import { checkSlot } from './checker.js'
import { Crowd } from './crowd.js'
import { refusalOf } from './dial-gate.js'
import { Ledger, type Check, type Condition, type Order } from './ledger.js'
import { toldBy, type Limits } from './limits.js'
import { Opener, type Opened } from './opener.js'
import type { ResolvedOptions } from './options.js'
import { poolClosed, queueFull } from './sentences.js'
import { makeReadOnly } from './read-only.js'
import type { Sharers } from './sharers.js'
import type { RetireReason, Slot } from './slot.js'
import { Standing } from './standing.js'

// The server hangs up within milliseconds of a goodbye; a peer that is silent is not waited for.
const CLOSE_WITHIN_MS = 1_000
// An idle session of a full account goes back within a second.
const SWEEP_AT_LEAST_EVERY_MS = 250
const SWEEP_AT_MOST_EVERY_MS = 50

/** The last dial that failed, for the error of those whom it made wait in vain. */
export interface LastRefusal {
  readonly fault: Fault
  readonly at: number
}

/** Carries the ledger's orders out, and reports the facts back. Everything that waits for a session waits here. */
export class Lender {
  readonly options: ResolvedOptions
  readonly clock: Clock
  readonly #budget: Budget
  readonly #opener: Opener
  readonly #ledger: Ledger
  readonly #crowd: Crowd
  readonly #shutdown = new AbortController()
  readonly #total = { opened: 0, refused: 0, acquired: 0, released: 0, retired: 0, timedOut: 0, retries: 0, leaks: 0 }
  #limits: Limits | undefined = undefined
  #lastRefusal: LastRefusal | undefined = undefined
  #sweeper: Timer | undefined = undefined
  #dialer: Timer | undefined = undefined
  #isClosing = false
  #jumps: number
  #hasExtra = false
  #ghostLaid: (() => void) | undefined = undefined
  #emptied: (() => void) | undefined = undefined
  #sweepers: ((now: number) => void)[] = []
  #sharers: Sharers | undefined = undefined
  #noLane: string | undefined = undefined
  /** What a dial takes, of late. */
  #dialMs = 0

  constructor(options: ResolvedOptions, driver: Driver, budget: Budget, clock: Clock) {
    this.options = options
    this.clock = clock
    this.#jumps = clock.jumps
    this.#budget = budget
    this.#opener = new Opener(driver, budget, clock, options)
    this.#ledger = new Ledger({ ...options, random: Math.random })
    this.#crowd = new Crowd(this, (waiter, why) => {
      this.#ledger.withdrawn(waiter)
      if (why === 'late' && !waiter.isErrand) this.#total.timedOut++
    })
    if (options.minIdle > 0) this.#carryOut(this.#ledger.swept(clock.now()))
  }

  // ---- lending

  /** A session at once, when one is idle and trusted and nobody waits: the hot path. */
  take(): Slot | undefined {
    if (this.#isClosing) return undefined
    const now = this.clock.now()
    if (this.clock.jumps !== this.#jumps) this.#woke()
    const slot = this.#ledger.lend(now) ?? (this.#vacate(now) ? this.#ledger.lend(now) : undefined)
    if (slot !== undefined) this.#lent(slot, 0)
    return slot
  }

  #vacate(now: number): boolean {
    if (this.#ledger.count('lane') === 0 || this.#ledger.waiting > 0) return false
    return this.#ledger.count('idle') === 0 && (this.#sharers as Sharers).vacate(now)
  }

  /** A session by the deadline, in turn. */
  wait(timeoutMs: number, signal: AbortSignal | undefined): Promise<Slot> {
    if (signal?.aborted) return Promise.reject(aborted(signal))
    const refusal = this.refusal(0)
    return refusal ? Promise.reject(refusal) : this.#stand(timeoutMs, signal)
  }

  /** Why nobody may join those who wait; `others` wait elsewhere. */
  refusal(others: number): HoldfastError | undefined {
    if (this.#isClosing) return poolClosed(this.options.name)
    return this.#ledger.queued + others >= this.options.queueLimit ? queueFull(this) : undefined
  }

  /** As take(), for reads that share it. */
  takeLane(now: number): Slot | undefined {
    if (this.#isClosing) return undefined
    if (this.clock.jumps !== this.#jumps) this.#woke()
    const slot = this.#ledger.lend(now, 'lane')
    if (slot !== undefined) this.#shared(slot)
    return slot
  }

  /** As wait(), for reads that share it; they have been let in before. */
  waitLane(timeoutMs: number, signal: AbortSignal | undefined): Promise<Slot> {
    if (this.#isClosing) return Promise.reject(poolClosed(this.options.name))
    if (signal?.aborted) return Promise.reject(aborted(signal))
    return this.#stand(timeoutMs, signal, 'lane')
  }

  /** Opens one more session if there may be one: on those that are shared, reads wait for longer than a dial takes. */
  wish(waitMs: number): void {
    if (waitMs > this.#dialMs && !this.#isClosing) this.#carryOut(this.#ledger.wished(this.clock.now()))
  }

  /** For the pool's own errand: before everybody, and without a limit of the queue. */
  waitFirst(timeoutMs: number, signal: AbortSignal): Promise<Slot> {
    if (this.#ledger.isShut) return Promise.reject(poolClosed(this.options.name))
    if (signal.aborted) return Promise.reject(aborted(signal))
    this.#vacate(this.clock.now())
    return this.#stand(timeoutMs, signal, 'errand')
  }

  /**
   * A session beyond the ceiling, for an errand when everybody else is at work: one at a time, and never more than the
   * server lets us have. Undefined when there is none to be had.
   */
  async openExtra(signal: AbortSignal): Promise<Opened | undefined> {
    const { maxUserConnections = Infinity, maxConnections = Infinity } = this.#limits ?? {}
    if (this.#hasExtra || this.#ledger.held >= Math.min(maxUserConnections, maxConnections)) return undefined
    this.#hasExtra = true
    try {
      return await this.#opener.open(signal)
    } catch {
      this.#hasExtra = false
      return undefined
    }
  }

  async closeExtra({ session, permit }: Opened): Promise<void> {
    await session.close(CLOSE_WITHIN_MS)
    permit[Symbol.dispose]()
    this.#hasExtra = false
  }

  /** `heard`: the server has just answered on it. */
  giveBack(slot: Slot, condition: Condition, heard = false, now: number = this.clock.now()): void {
    if (slot.place !== 'leased' && slot.place !== 'lane') return
    if (heard) slot.heardAt = now
    if (slot.place === 'leased') this.#noteRelease(slot, now)
    this.#carryOut(this.#ledger.returned(slot, slot.session?.alive ? condition : 'lost', now))
    this.#letGo(slot)
  }

  /** The caller has dropped its statement while the server may still run it: nobody gets this session any more. */
  ghost(slot: Slot): void {
    const now = this.clock.now()
    if (slot.place === 'leased') this.#noteRelease(slot, now)
    this.#ledger.ghosted(slot, now)
  }

  /** The server has ended a ghost's statement. */
  lay(slot: Slot): void {
    if (slot.place !== 'ghost') return
    this.#carryOut(this.#ledger.laid(slot, this.clock.now()))
    this.#ghostLaid?.()
  }

  retire(slot: Slot, reason: RetireReason): void {
    this.#carryOut(this.#ledger.retire(slot, reason, this.clock.now()))
  }

  /** A session turned out dead, or behind a server that takes no writes: the others are looked at before they are lent. */
  suspect(): void {
    this.#ledger.suspect(this.clock.now())
  }

  // ---- what it tells

  get limits(): Limits | undefined {
    return this.#limits
  }
  get lastRefusal(): LastRefusal | undefined {
    return this.#lastRefusal
  }
  get slots(): Iterable<Slot> {
    return this.#ledger.slots
  }
  /** True when all that the pool holds are ghosts: nobody is left who could end their statements. */
  get onlyGhosts(): boolean {
    return this.#ledger.held === this.#ledger.count('ghost')
  }
  get quietLimitMs(): number {
    return this.#ledger.quietLimitMs
  }
  /** How many lanes those who wait need for themselves. */
  get claims(): number {
    return this.#ledger.claims
  }
  /** The first session is being opened, and nothing speaks against it yet. */
  get isFirstDial(): boolean {
    return this.#lastRefusal === undefined && this.#ledger.count('opening') === this.#ledger.held
  }
  get ceiling(): number {
    return this.#ledger.ceiling
  }
  /** Why reads cannot share sessions, as far as the newest one told. */
  get noLane(): string | undefined {
    return this.options.lanes === 'off' ? "lanes: 'off'" : this.#noLane
  }

  count(what: 'retries' | 'leaks' | 'timedOut'): void {
    this.#total[what]++
  }

  /** Called at each sweep, with the time. */
  onSweep(task: (now: number) => void): void {
    this.#sweepers.push(task)
  }

  share(sharers: Sharers): void {
    this.#sharers = sharers
  }

  acquireTimeout(timeoutMs: number): HoldfastError {
    return this.#crowd.lateness(timeoutMs)
  }

  stats(): Stats {
    const ledger = this.#ledger
    const sharers = this.#sharers as Sharers
    return {
      name: this.options.name,
      max: this.options.max,
      ceiling: ledger.ceiling,
      held: ledger.held,
      opening: ledger.count('opening'),
      idle: ledger.count('idle') + sharers.idle,
      checking: ledger.count('checking'),
      lane: ledger.count('lane') - sharers.idle,
      leased: ledger.count('leased'),
      closing: ledger.count('closing'),
      ghost: ledger.count('ghost'),
      waiting: ledger.waiting + sharers.waiting,
      total: { ...this.#total },
      lanes: sharers.stats(),
    }
  }

  // ---- the end

  get isShut(): boolean {
    return this.#ledger.isShut
  }

  /**
   * No more lending. Resolves when the server has let go of every session, or at the deadline with what was left cut.
   * Statements that were given up are ended on the server first: that takes a session.
   */
  async shut(timeoutMs: number): Promise<void> {
    this.#isClosing = true
    this.#carryOut(this.#ledger.dismissed())
    this.#sharers?.shut(poolClosed(this.options.name))
    const deadline = this.clock.now() + timeoutMs
    while (this.#ledger.count('ghost') > 0 && this.clock.now() < deadline) await this.#nextGhost(deadline)
    this.#carryOut(this.#ledger.shut(this.clock.now()))
    this.#dialer?.cancel()
    this.#shutdown.abort(poolClosed(this.options.name))
    for (const slot of this.#ledger.slots) if (slot.place === 'ghost') slot.session?.destroy()
    if (this.#ledger.held > 0) {
      const timer = this.clock.after(deadline - this.clock.now(), () => this.#cutAll(), true)
      await new Promise<void>((resolve) => (this.#emptied = resolve))
      timer.cancel()
    }
    this.#sweeper?.cancel()
  }

  #nextGhost(deadline: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = this.clock.after(deadline - this.clock.now(), resolve, true)
      this.#ghostLaid = () => {
        timer.cancel()
        resolve()
      }
    })
  }

  #cutAll(): void {
    for (const slot of [...this.#ledger.slots]) {
      slot.session?.destroy()
      this.#freed(slot)
    }
  }

  // ---- orders

  #carryOut(orders: Order[]): void {
    for (const order of orders) {
      switch (order.do) {
        case 'lend':
          ;(order.waiter as Standing).serve(order.slot)
          break
        case 'open':
          void this.#open(order.slot)
          break
        case 'check':
          void this.#check(order.slot, order.how)
          break
        case 'close':
          void this.#close(order.slot, order.reason)
          break
        case 'refuse':
          this.#crowd.fail(order.waiters as Standing[], order.why)
      }
    }
    if (this.#ledger.claims > 0 && this.#ledger.count('lane') > 0) this.#sharers?.claimed()
    this.#watch()
  }

  async #open(slot: Slot): Promise<void> {
    const began = this.clock.now()
    let opened: Opened
    try {
      opened = await this.#opener.open(this.#shutdown.signal)
    } catch (error) {
      return this.#refused(slot, error)
    }
    const now = this.clock.now()
    const { session, permit, learned, sharing } = opened
    slot.session = session
    slot.permit = permit
    slot.learned = learned
    slot.roundTripMs = sharing.roundTripMs ?? Infinity
    slot.noLane = sharing.noLane
    slot.isForReading = sharing.isReadOnly ?? false
    this.#dialMs += (now - began - this.#dialMs) / (this.#total.opened === 0 ? 1 : 4)
    this.#noLane = [...this.#ledger.slots].find((each) => each.noLane !== undefined)?.noLane
    this.#limits = learned.limits
    this.#lastRefusal = undefined
    this.#total.opened++
    if (events.opened.hasSubscribers) {
      events.opened.publish({ pool: this.options.name, threadId: session.threadId, openedInMs: now - began })
    }
    void session.ended.then(() => this.#carryOut(this.#ledger.lost(slot, this.clock.now())))
    this.#budget.learned?.({ maxSessions: learned.limits.maxUserConnections ?? Infinity })
    this.#carryOut(this.#ledger.opened(slot, toldBy(learned), now))
    // Wanted back while it was being opened: who waits for it gets it first, or two pools would open and close for ever.
    if (permit.revoked.aborted) this.retire(slot, 'revoked')
    else permit.revoked.addEventListener('abort', () => this.retire(slot, 'revoked'), { once: true })
    this.#letGo(slot)
  }

  #refused(slot: Slot, error: unknown): void {
    const now = this.clock.now()
    const refusal = this.#ledger.isShut ? 'given-up' : refusalOf(error as Fault)
    if (refusal !== 'given-up') {
      const fault = error as Fault
      this.#lastRefusal = { fault, at: now }
      this.#total.refused++
      if (events.refused.hasSubscribers) events.refused.publish({ pool: this.options.name, fault })
    }
    this.#carryOut(this.#ledger.refused(slot, refusal, now))
    if (this.#ledger.held === 0) this.#emptied?.()
  }

  async #check(slot: Slot, how: Check): Promise<void> {
    const stalled = (): void => this.#carryOut(this.#ledger.stalled(slot, this.clock.now()))
    const finding = await checkSlot(this.clock, slot, how, this.options.sessionInit, stalled)
    // A drain may have cut it off meanwhile.
    if (slot.place !== 'checking') return
    this.#carryOut(this.#ledger.checked(slot, finding, how, this.clock.now()))
    this.#letGo(slot)
  }

  async #close(slot: Slot, reason: RetireReason): Promise<void> {
    this.#total.retired++
    const now = this.clock.now()
    if (events.retired.hasSubscribers) {
      events.retired.publish({
        pool: this.options.name,
        threadId: threadOf(slot),
        reason,
        livedMs: now - slot.openedAt,
      })
    }
    if (slot.session?.alive) {
      slot.session.hold(this.#ledger.isShut)
      await slot.session.close(CLOSE_WITHIN_MS)
    } else slot.session?.destroy()
    this.#freed(slot)
  }

  #freed(slot: Slot): void {
    slot.permit?.[Symbol.dispose]()
    this.#carryOut(this.#ledger.closed(slot, this.clock.now()))
    if (this.#ledger.held === 0) this.#emptied?.()
  }

  #noteRelease(slot: Slot, now: number): void {
    this.#total.released++
    if (events.released.hasSubscribers) {
      events.released.publish({ pool: this.options.name, threadId: threadOf(slot), usedMs: now - slot.leasedAt })
    }
  }

  /** An idle session does not keep the process alive. */
  #letGo(slot: Slot): void {
    if (slot.place === 'idle') slot.session?.hold(false)
  }

  // ---- waiting

  #stand(timeoutMs: number, signal: AbortSignal | undefined, what?: 'errand' | 'lane'): Promise<Slot> {
    return new Promise((resolve, reject) => {
      const now = this.clock.now()
      const waiter = new Standing(this, resolve, reject, now, timeoutMs, signal, what)
      this.#crowd.add(waiter)
      this.#carryOut(what === 'errand' ? this.#ledger.askedFirst(waiter, now) : this.#ledger.asked(waiter, now))
    })
  }

  /** @internal A waiter was served or failed: nothing of it remains. */
  left(waiter: Standing): void {
    this.#crowd.left(waiter)
  }

  /** @internal */
  served(waiter: Standing, slot: Slot): void {
    this.left(waiter)
    if (waiter.forLane) this.#shared(slot)
    else this.#lent(slot, slot.leasedAt - waiter.since)
  }

  #shared(slot: Slot): void {
    slot.session?.hold(true)
    if (!slot.readOnly) makeReadOnly(slot, true)
  }

  #lent(slot: Slot, waitedMs: number): void {
    slot.session?.hold(true)
    if (slot.readOnly) makeReadOnly(slot, false)
    this.#total.acquired++
    if (events.acquired.hasSubscribers) {
      events.acquired.publish({ pool: this.options.name, threadId: threadOf(slot), waitedMs })
    }
  }

  // ---- time

  /** One sweeper while there is anything to sweep; one alarm for the next dial while somebody waits for it. */
  #watch(): void {
    if (this.#sweeper === undefined && this.#ledger.held > 0)
      this.#sweeper = this.clock.after(this.#sweepMs(), () => this.#sweep())
    const dialAt = this.#dialer === undefined ? this.#ledger.nextDialAt : undefined
    if (dialAt === undefined) return
    this.#dialer = this.clock.after(dialAt - this.clock.now(), () => {
      this.#dialer = undefined
      this.#carryOut(this.#ledger.swept(this.clock.now()))
    })
  }

  #sweepMs(): number {
    const soonest = Math.min(this.#ledger.idleLimitMs, this.#ledger.quietLimitMs, this.options.leakAfterMs)
    return Math.min(Math.max(soonest / 4, SWEEP_AT_MOST_EVERY_MS), SWEEP_AT_LEAST_EVERY_MS)
  }

  /** The machine was asleep: nobody was heard from for longer than it looks. */
  #woke(): void {
    this.#jumps = this.clock.jumps
    for (const slot of this.#ledger.slots) slot.heardAt = -Infinity
    this.suspect()
  }

  #sweep(): void {
    this.#sweeper = undefined
    const now = this.clock.now()
    if (this.clock.jumps !== this.#jumps) this.#woke()
    for (const task of this.#sweepers) task(now)
    this.#carryOut(this.#ledger.swept(now))
  }
}

export function aborted(signal: AbortSignal, effect: Effect = 'none'): HoldfastError {
  return new HoldfastError('ABORTED', 'the work was given up: its signal was aborted', { effect, cause: signal.reason })
}

function threadOf(slot: Slot): number {
  return slot.session?.threadId ?? 0
}
