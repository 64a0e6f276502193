import { AbortGroups, Slices } from '../abort.js'
import type { Budget } from '../budget.js'
import type { Clock, Timer } from '../clock.js'
import type { Driver } from '../driver.js'
import { HoldfastError } from '../errors.js'
import { events } from '../events.js'
import type { Effect, Fault } from '../faults/fault.js'
import type { Stats } from '../stats.js'
import { Deadlines } from './deadlines.js'
import { refusalOf } from './dial-gate.js'
import { Ledger, type Check, type Condition, type Order } from './ledger.js'
import { toldBy, type Limits } from './limits.js'
import { cleanse, Opener, within, type Opened } from './opener.js'
import type { ResolvedOptions } from './options.js'
import { acquireSentence, acquireTimeout, connectFailed, poolClosed, queueFull } from './sentences.js'
import type { RetireReason, Slot } from './slot.js'
import { Standing } from './standing.js'
import type { Waiter } from './waiter.js'

// Counts and ages in a sentence may be so old.
const SAME_STORY_MS = 5
// A live server answers a ping in a round trip; one that says nothing for this long is taken for gone.
const PING_WITHIN_MS = 1_000
// A reset, and what makes the session whole again, are a few round trips, and a rollback that may be long.
const RESET_WITHIN_MS = 5_000
// A check that takes longer does not hold its waiter up: another way is tried beside it.
const CHECK_STALLS_AFTER_MS = 200
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
  readonly #deadlines: Deadlines
  readonly #aborts: AbortGroups<Standing>
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
  #told: { readonly timeoutMs: number; readonly at: number; readonly sentence: string } | undefined = undefined
  readonly #failing = {
    late: new Slices<Standing>((waiter) => this.#failOne(waiter, 'late')),
    aborted: new Slices<Standing>((waiter) => this.#failOne(waiter, 'aborted')),
    refused: new Slices<Standing>((waiter) => this.#failOne(waiter, 'refused')),
    shut: new Slices<Standing>((waiter) => this.#failOne(waiter, 'shut')),
  }
  #sweepers: ((now: number) => void)[] = []

  constructor(options: ResolvedOptions, driver: Driver, budget: Budget, clock: Clock) {
    this.options = options
    this.clock = clock
    this.#jumps = clock.jumps
    this.#budget = budget
    this.#opener = new Opener(driver, budget, clock, options)
    this.#ledger = new Ledger({ ...options, random: Math.random })
    this.#deadlines = new Deadlines(clock, (due) => this.#fail(due, 'late'))
    this.#aborts = new AbortGroups((aborted) => this.#fail(aborted, 'aborted'))
    if (options.minIdle > 0) this.#carryOut(this.#ledger.swept(clock.now()))
  }

  // ---- lending

  /** A session at once, when one is idle and trusted and nobody waits: the hot path. */
  take(): Slot | undefined {
    if (this.#isClosing) return undefined
    const now = this.clock.now()
    if (this.clock.jumps !== this.#jumps) this.#woke()
    const slot = this.#ledger.lend(now)
    if (slot !== undefined) this.#lent(slot, 0)
    return slot
  }

  /** A session by the deadline, in turn. */
  wait(timeoutMs: number, signal: AbortSignal | undefined): Promise<Slot> {
    if (this.#isClosing) return Promise.reject(poolClosed(this.options.name))
    if (signal?.aborted) return Promise.reject(aborted(signal))
    if (this.#ledger.queued >= this.options.queueLimit) return Promise.reject(queueFull(this))
    return this.#stand(timeoutMs, signal, false)
  }

  /** For the pool's own errand: before everybody, and without a limit of the queue. */
  waitFirst(timeoutMs: number, signal: AbortSignal): Promise<Slot> {
    if (this.#ledger.isShut) return Promise.reject(poolClosed(this.options.name))
    if (signal.aborted) return Promise.reject(aborted(signal))
    return this.#stand(timeoutMs, signal, true)
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
  giveBack(slot: Slot, condition: Condition, heard = false): void {
    if (slot.place !== 'leased') return
    const now = this.clock.now()
    if (heard) slot.heardAt = now
    this.#noteRelease(slot, now)
    this.#carryOut(this.#ledger.returned(slot, slot.session?.alive ? condition : 'lost', now))
    this.#letGo(slot)
  }

  /** The caller has dropped its statement while the server may still run it: nobody gets this session any more. */
  ghost(slot: Slot): void {
    const now = this.clock.now()
    this.#noteRelease(slot, now)
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

  count(what: 'retries' | 'leaks'): void {
    this.#total[what]++
  }

  /** Called at each sweep, with the time. */
  onSweep(task: (now: number) => void): void {
    this.#sweepers.push(task)
  }

  stats(): Stats {
    const ledger = this.#ledger
    return {
      name: this.options.name,
      max: this.options.max,
      ceiling: ledger.ceiling,
      held: ledger.held,
      opening: ledger.count('opening'),
      idle: ledger.count('idle'),
      checking: ledger.count('checking'),
      lane: ledger.count('lane'),
      leased: ledger.count('leased'),
      closing: ledger.count('closing'),
      ghost: ledger.count('ghost'),
      waiting: ledger.waiting,
      total: { ...this.#total },
      lanes: { on: false, reason: this.options.lanes === 'off' ? "lanes: 'off'" : 'not in this release' },
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
          this.#fail(order.waiters, order.why)
      }
    }
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
    const { session, permit, learned } = opened
    slot.session = session
    slot.permit = permit
    slot.learned = learned
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
    const session = slot.session
    if (session === undefined) return
    if (how === 'look') {
      // The socket's end, if the kernel has it already, is seen by the second turn at the latest.
      await new Promise((resolve) => setImmediate(() => setImmediate(resolve)))
      if (slot.place !== 'checking') return
      return this.#carryOut(this.#ledger.checked(slot, session.alive ? 'fit' : 'dead', how, this.clock.now()))
    }
    const stall = this.clock.after(CHECK_STALLS_AFTER_MS, () =>
      this.#carryOut(this.#ledger.stalled(slot, this.clock.now())),
    )
    const learned = slot.learned
    const task =
      how === 'ping' || learned === undefined
        ? () => session.ping()
        : () => cleanse(session, learned, this.options.sessionInit)
    const ms = how === 'ping' ? PING_WITHIN_MS : RESET_WITHIN_MS
    const answered = await within(this.clock, ms, undefined, task, () => new Error(`no answer within ${ms} ms`)).then(
      () => true,
      () => false,
    )
    stall.cancel()
    // A session that was shut down meanwhile is closed as any other.
    if (!answered) session.destroy()
    // A drain may have cut it off meanwhile.
    if (slot.place !== 'checking') return
    this.#carryOut(this.#ledger.checked(slot, answered ? 'heard' : 'dead', how, this.clock.now()))
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

  #stand(timeoutMs: number, signal: AbortSignal | undefined, isErrand: boolean): Promise<Slot> {
    return new Promise((resolve, reject) => {
      const now = this.clock.now()
      const waiter = new Standing(this, resolve, reject, now, timeoutMs, signal, isErrand)
      this.#deadlines.add(waiter, now)
      if (signal) this.#aborts.add(signal, waiter)
      this.#carryOut(isErrand ? this.#ledger.askedFirst(waiter, now) : this.#ledger.asked(waiter, now))
    })
  }

  /** @internal A waiter was served or failed: nothing of it remains. */
  left(waiter: Standing): void {
    this.#deadlines.remove(waiter)
    if (waiter.signal) this.#aborts.remove(waiter.signal, waiter)
  }

  /** @internal */
  served(waiter: Standing, slot: Slot): void {
    this.left(waiter)
    this.#lent(slot, slot.leasedAt - waiter.since)
  }

  #lent(slot: Slot, waitedMs: number): void {
    slot.session?.hold(true)
    this.#total.acquired++
    if (events.acquired.hasSubscribers) {
      events.acquired.publish({ pool: this.options.name, threadId: threadOf(slot), waitedMs })
    }
  }

  /** Rejects a crowd without blocking: those who stand in line still, and were not served meanwhile. */
  #fail(waiters: Iterable<Waiter>, why: 'late' | 'aborted' | 'refused' | 'shut'): void {
    this.#failing[why].add(waiters as Iterable<Standing>)
  }

  #failOne(waiter: Standing, why: 'late' | 'aborted' | 'refused' | 'shut'): void {
    this.#ledger.withdrawn(waiter)
    if (waiter.settled) return
    if (why === 'late') this.#total.timedOut++
    // The stack here is a timer's: it says nothing, and for a crowd it is most of the work.
    const limit = Error.stackTraceLimit
    Error.stackTraceLimit = 0
    try {
      waiter.fail(this.#reason(waiter, why))
    } finally {
      Error.stackTraceLimit = limit
    }
  }

  #reason(waiter: Standing, why: 'late' | 'aborted' | 'refused' | 'shut'): HoldfastError {
    if (waiter.signal?.aborted) return aborted(waiter.signal)
    if (why === 'shut') return poolClosed(this.options.name)
    if (why === 'refused') return connectFailed(this)
    return this.#acquireTimeout(waiter.timeoutMs)
  }

  /** A crowd that is late together is told the same. */
  #acquireTimeout(timeoutMs: number): HoldfastError {
    const now = this.clock.now()
    if (this.#told?.timeoutMs !== timeoutMs || now - this.#told.at > SAME_STORY_MS) {
      this.#told = { timeoutMs, at: now, sentence: acquireSentence(this, timeoutMs) }
    }
    return acquireTimeout(this.#told.sentence, this.#lastRefusal)
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
