import type { Timer } from '../clock.js'
import type { Result } from '../driver.js'
import type { HoldfastError } from '../errors.js'
import type { Fault } from '../faults/fault.js'
import type { Stats } from '../stats.js'
import { events } from '../events.js'
import { Forms, LANE_WAIT_MS, LEAST_MS, type Form } from './form.js'
import { isSilent, layGhost } from './ghost.js'
import { Lane, type Flight } from './lane.js'
import { aborted, type Lender } from './lender.js'
import { LaneCount } from './lane-count.js'
import { Lobby } from './lobby.js'
import type { Read } from './read.js'
import { isBounce } from './read-only.js'
import type { Slot } from './slot.js'

// With more to do than this on each lane, an idle session is made one more.
const SPREAD_ABOVE_MS = 1
// A head that runs for longer gets no more company, and those behind it are run elsewhere.
const OVERRUN_MS = 20
const OVERRUN_FACTOR = 4
const LOOK_EVERY_MS = 10
// A read that was answered elsewhere, and runs for so long, is ended on the server.
const UNWANTED_MS = 500
// Not a byte for so long: the server is asked through another session whether it is at work at all.
const SILENT_AFTER_MS = 1_000
// While quick reads come, slow ones leave them one session.
const QUICK_LATELY_MS = 5_000
// Each loss is of another session: more mean that the read itself ends them.
const MOST_LOSSES = 8
// A read that waits for a moment is less than a waiter of the queueLimit.
const FLOWING_COUNT = 10

interface Sighting {
  readonly form?: Form
  at: number
}

/**
 * Who shares which session. Reads that are expected to be quick stand behind one another on few sessions; one of a form
 * that has not been seen, or that is slow, has a session to itself. Nobody stands behind more expected work than
 * LANE_WAIT_MS; whoever waits for a session of his own gets the next lane that runs empty.
 */
export class Lanes {
  readonly count: LaneCount = new LaneCount()
  readonly #lender: Lender
  readonly #lobby: Lobby
  readonly #forms = new Forms()
  readonly #lanes: Lane[] = []
  #slowRunning = 0
  /** The forms of quick reads that came up lately. */
  #quick: [Sighting, Sighting] = [{ at: -Infinity }, { at: -Infinity }]
  /** A session is waited for, in line with everybody. */
  #isAsking = false
  #nextLook: Timer | undefined = undefined
  readonly now: () => number

  constructor(lender: Lender) {
    this.#lender = lender
    this.now = () => lender.clock.now()
    this.#lobby = new Lobby(lender)
    lender.share(this)
  }

  /** Reads that wait in no line of the lender's. */
  get waiting(): number {
    return this.#lobby.length - (this.#isAsking ? 1 : 0)
  }

  stats(): Stats['lanes'] {
    const reason = this.#lender.noLane
    let depth = 0
    for (const lane of this.#lanes) depth += lane.depth
    return { on: reason === undefined, ...(reason !== undefined && { reason }), depth, ...this.count.stats() }
  }

  /** Reads get through, or are about to: a long line is soon a short one. */
  get #isFlowing(): boolean {
    return this.#lanes.length > 0 || this.#lender.isFirstDial
  }

  form(hash: number, sql: string): Form {
    return this.#forms.of(hash, sql)
  }

  run(read: Read, now: number): void {
    const waiting = this.#isFlowing ? this.waiting / FLOWING_COUNT : this.waiting
    const refusal = read.signal?.aborted ? aborted(read.signal) : this.#lender.refusal(waiting)
    if (refusal) return read.refused(refusal)
    this.#lobby.enter(read, now)
    this.#dispatch(read, now)
  }

  /** Somebody waits for a session of his own: lanes are emptied, those with the least to do first. */
  claimed(): void {
    let wanted = this.#lender.claims
    for (const lane of this.#lanes) if (lane.isClaimed) wanted--
    for (; wanted > 0; wanted--) {
      const lane = this.#leastBusy()
      if (lane === undefined) break
      lane.isClaimed = true
      lane.isOpen = false
    }
    this.#ask()
  }

  /** Nobody gets a session any more: who waits is refused, what is under way may end. */
  shut(error: HoldfastError): void {
    for (const read of this.#lobby.leaveAll()) if (read.flights === 0) this.#lobby.giveUp(read, error)
  }

  // ---- who goes where

  #dispatch(read: Read, now: number): void {
    const { form } = read
    if (read.isSuspect) this.#alone(read, now)
    else if (form.isQuick) this.#join(read, now)
    else if (form.isSeen) this.#goSlow(read, now)
    else if (form.trial === undefined || form.trial === read) {
      form.trial = read
      if (form.isInDoubt) this.#goSlow(read, now)
      else this.#alone(read, now)
    } else this.#lobby.waitsForTrial(read, now)
  }

  #join(read: Read, now: number): void {
    this.#seen(read.form, now)
    const { quick } = this.#lobby
    const lane = quick.length === 0 ? this.#laneWithRoom() : undefined
    if (lane) return this.#send(lane, read, now)
    this.#lobby.waits(read, quick, now)
    this.#lender.wish(LANE_WAIT_MS + quick.length * LEAST_MS)
    this.#ask()
  }

  #goSlow(read: Read, now: number): void {
    if (this.#slowRunning < this.#mostSlow(read.form, now)) {
      this.#slowRunning++
      return this.#alone(read, now, () => this.#slowEnded())
    }
    this.#lobby.waits(read, this.#lobby.slow, now)
  }

  /** Others became slow while it waited for its session. */
  #areTooSlow({ form }: Read): boolean {
    return !form.isQuick && this.#slowRunning > this.#mostSlow(form, this.now())
  }

  /** How many may be slow at once, for one of this form: while there are quick ones of others, they have a session. */
  #mostSlow(form: Form, now: number): number {
    const isWanted = this.#quick.some(
      (each) => each.form !== form && each.at > now - QUICK_LATELY_MS && (each.form?.isQuick || each.form?.isInDoubt),
    )
    return Math.max(1, this.#lender.ceiling - (isWanted ? 1 : 0))
  }

  /** Two, since the one that came last may be the one that turns out to be slow. */
  #seen(form: Form, now: number): void {
    const { 0: last } = this.#quick
    if (last.form !== form) this.#quick = [{ form, at: now }, last]
    else last.at = now
  }

  #slowEnded(): void {
    this.#slowRunning--
    const now = this.now()
    const { slow } = this.#lobby
    for (let next = slow.first; next && this.#slowRunning < this.#mostSlow(next.form, now); next = slow.first) {
      slow.leave(next)
      this.#dispatch(next, now)
    }
  }

  /** On a lane that nobody joins. */
  #alone(read: Read, now: number, ended?: () => void): void {
    const slot = this.#lender.takeLane()
    if (slot) return this.#solo(slot, read, now, ended)
    this.#lobby.stand(read)
    const timeoutMs = Math.min(read.sendBy, read.dueAt) - now
    if (timeoutMs <= 0) {
      this.#lobby.late(read)
      this.#tried(read)
      return ended?.()
    }
    this.#lender.waitLane(timeoutMs, read.signal).then(
      (given) => {
        if (!read.isSettled && !(ended && this.#areTooSlow(read))) return this.#solo(given, read, this.now(), ended)
        this.#lender.giveBack(given, 'clean')
        if (!read.isSettled) this.#lobby.waits(read, this.#lobby.slow, this.now())
        else this.#tried(read)
        ended?.()
      },
      (error: unknown) => {
        const { code } = error as HoldfastError
        if (code === 'POOL_ACQUIRE_TIMEOUT') this.#lobby.late(read, true)
        else this.#lobby.giveUp(read, error as HoldfastError)
        if (code === 'CONNECT_FAILED') this.shut(error as HoldfastError)
        this.#tried(read)
        ended?.()
      },
    )
  }

  #solo(slot: Slot, read: Read, now: number, ended: (() => void) | undefined): void {
    if (slot.noLane !== undefined) {
      this.#lender.giveBack(slot, 'clean')
      this.#unshare()
      this.#turnAway(read)
      this.#tried(read)
      return ended?.()
    }
    // While it waited for the session, others of its form may have shown that it is quick after all.
    const lane = this.#open(slot, read.isSuspect || !read.form.isQuick)
    lane.onEmpty = ended
    lane.isSlow = ended !== undefined
    this.#send(lane, read, now)
  }

  /** The one with the least to do; one more, when all have much. */
  #laneWithRoom(): Lane | undefined {
    const lane = this.#leastBusy()
    if (lane !== undefined && lane.backlogMs <= SPREAD_ABOVE_MS + lane.slot.roundTripMs) return lane
    const slot = this.#lender.takeLane()
    if (slot && slot.noLane === undefined) return this.#open(slot, false)
    if (slot) this.#lender.giveBack(slot, 'clean')
    if (lane === undefined) return undefined
    this.#lender.wish(lane.backlogMs + this.#lobby.quick.length * LEAST_MS)
    return lane.hasRoom ? lane : undefined
  }

  #leastBusy(): Lane | undefined {
    let best: Lane | undefined
    for (const lane of this.#lanes)
      if (lane.isOpen && (best === undefined || lane.backlogMs < best.backlogMs)) best = lane
    return best
  }

  /** When no lane takes those who wait, they stand in line with everybody for one: all together, as one. */
  #ask(): void {
    if (this.#isAsking || this.#lobby.quick.length === 0 || this.#leastBusy()) return
    this.#isAsking = true
    this.#lender.waitLane(Infinity, undefined).then(
      (slot) => {
        this.#isAsking = false
        if (slot.noLane !== undefined) {
          this.#lender.giveBack(slot, 'clean')
          return this.#unshare()
        }
        const lane = this.#open(slot, false)
        this.#pour(lane, this.now())
        if (lane.depth === 0) this.#close(lane)
        else if (this.#lender.claims > 0) this.claimed()
      },
      (error: unknown) => {
        this.#isAsking = false
        this.shut(error as HoldfastError)
      },
    )
  }

  #pour(lane: Lane, now: number): void {
    const { quick } = this.#lobby
    for (let read = quick.first; read && lane.isOpen && lane.hasRoom; read = quick.first) {
      quick.leave(read)
      this.#send(lane, read, now)
    }
  }

  /** Sessions turned out not to be for sharing: who waits gets one of his own. */
  #unshare(): void {
    for (const read of this.#lobby.leaveAll()) if (read.flights === 0) this.#turnAway(read)
  }

  #turnAway(read: Read): void {
    this.count.leased('lanes are off')
    this.#lobby.settle(read).unshared()
  }

  // ---- lanes

  #open(slot: Slot, isSolo: boolean): Lane {
    const lane = new Lane(this, slot, isSolo)
    this.#lanes.push(lane)
    if (this.#nextLook === undefined) this.#nextLook = this.#lender.clock.after(LOOK_EVERY_MS, this.#lookSoon)
    return lane
  }

  #send(lane: Lane, read: Read, now: number): void {
    this.#lobby.sent(read, now)
    lane.send(read, now)
  }

  #close(lane: Lane): void {
    if (this.#drop(lane)) this.#lender.giveBack(lane.slot, 'clean', true)
    this.#ask()
  }

  /** It is no lane any more. True when its session is still ours to give back. */
  #drop(lane: Lane): boolean {
    const at = this.#lanes.indexOf(lane)
    if (at >= 0) this.#lanes.splice(at, 1)
    lane.isOpen = false
    if (lane.depth === 0) {
      const { onEmpty } = lane
      lane.onEmpty = undefined
      onEmpty?.()
    }
    if (lane.isOver) return false
    lane.isOver = true
    return true
  }

  /** @internal */
  answered(flight: Flight, result: Result, tookMs: number, bytes: number): void {
    const { lane, read } = flight
    read.form.learn(tookMs, bytes, lane.isSolo)
    this.#tried(read)
    if (!read.isSettled) {
      this.count.answered++
      this.#lobby.settle(read).done(result)
    }
    this.#next(lane)
  }

  /** @internal */
  failed(flight: Flight, fault: Fault, tookMs: number): void {
    const { lane, read } = flight
    if (fault.session === 'lost') return this.#lost(lane, flight, fault)
    // A KILL QUERY may hit a read by chance; who has one of these ended has seen it run.
    const wasMeant = lane.isSolo || flight.hasOverrun
    if (!read.isSettled && read.flights === 0) {
      if (isBounce(fault)) {
        this.count.bounced(read.form)
        this.#lobby.settle(read).unshared()
      } else if (fault.kind !== 'interrupted' || wasMeant) {
        this.count.answered++
        this.#lobby.settle(read).failed(fault, lane.slot)
      } else if (read.line === undefined) this.#again(read, fault, lane.slot)
    }
    if (fault.kind !== 'interrupted') read.form.learn(tookMs, 0, lane.isSolo)
    if (read.isSettled) this.#tried(read)
    this.#next(lane)
  }

  #next(lane: Lane): void {
    if (lane.isOver) {
      if (lane.depth === 0) this.#drop(lane)
      return
    }
    if (lane.isOpen && this.#lobby.quick.length > 0) this.#pour(lane, this.now())
    if (lane.depth === 0) this.#close(lane)
  }

  /** Its reads are run again: the server guarantees that they changed nothing. */
  #lost(lane: Lane, flight: Flight, fault: Fault): void {
    const { read } = flight
    if (flight.wasHead) read.isSuspect = true
    if (this.#drop(lane)) {
      const { slot } = lane
      if (events.fault.hasSubscribers)
        events.fault.publish({ pool: this.#lender.options.name, threadId: slot.session?.threadId ?? 0, fault })
      this.#lender.giveBack(slot, 'lost')
    }
    if (!read.isSettled && read.flights === 0 && read.line === undefined) this.#again(read, fault, lane.slot)
    if (read.isSettled) this.#tried(read)
    this.#ask()
  }

  #again(read: Read, fault: Fault, slot: Slot): void {
    if (++read.losses >= MOST_LOSSES) return this.#lobby.settle(read).failed(fault, slot)
    this.count.rerun++
    this.#lender.count('retries')
    if (events.retry.hasSubscribers)
      events.retry.publish({
        pool: this.#lender.options.name,
        what: 'statement',
        attempt: read.losses + 1,
        fault,
        inMs: 0,
      })
    const now = this.now()
    this.#lobby.enter(read, now)
    this.#dispatch(read, now)
  }

  /** A form's first read has ended, or runs for long: those who waited for it know now where they belong. */
  #tried(read: Read): void {
    const { form } = read
    if (form.trial !== read && !form.isSeen) return
    form.trial = undefined
    const waiting = this.#lobby.afterTrial(form)
    if (waiting.length === 0) return
    const now = this.now()
    for (const each of waiting) this.#dispatch(each, now)
  }

  // ---- looking after lanes

  /** What came while the event loop was busy is heard first. */
  readonly #lookSoon = (): void => {
    setImmediate(() => {
      this.#lookAfter(this.now())
      this.#nextLook = this.#lanes.length > 0 ? this.#lender.clock.after(LOOK_EVERY_MS, this.#lookSoon) : undefined
    })
  }

  #lookAfter(now: number): void {
    const stuck: Flight[] = []
    for (const lane of this.#lanes) {
      const { slot, head } = lane
      if (slot.retire !== undefined || now >= slot.expiresAt) lane.isOpen = false
      if (head === undefined || lane.isOver) continue
      const patienceMs = head.read.isGivenUp ? OVERRUN_MS : Math.max(OVERRUN_MS, head.expectMs * OVERRUN_FACTOR)
      if (lane.runningMs(now) <= patienceMs) continue
      if (!head.hasOverrun) this.#overran(head, now)
      stuck.push(head)
    }
    // When the server stands still, all lanes do: none of them is "elsewhere" for the others.
    for (const head of stuck) {
      this.#tried(head.read)
      this.#moveAll(head.lane, head, now)
      this.#help(head, now)
    }
    this.#ask()
  }

  /** Nobody joins that lane any more, and its form is no longer taken for quick. */
  #overran(head: Flight, now: number): void {
    const { lane } = head
    head.hasOverrun = true
    lane.isOpen = false
    head.read.form.overran(lane.runningMs(now))
    this.#countSlow(lane)
  }

  /** By now nobody depends on that session: a head that is wanted no more can be ended on the server. */
  #help(head: Flight, now: number): void {
    const { lane, read } = head
    if (lane.isOver) return
    // One that was answered elsewhere is nearly always about to be answered here.
    if (read.isGivenUp || (read.isSettled && lane.runningMs(now) > UNWANTED_MS)) this.#end(lane)
    else if (lane.isSilent(now, SILENT_AFTER_MS)) void this.#askAfter(lane)
  }

  #countSlow(lane: Lane): void {
    if (lane.isSlow) return
    lane.isSlow = true
    this.#slowRunning++
    lane.onEmpty = both(lane.onEmpty, () => this.#slowEnded())
  }

  /** Who stands behind it is run elsewhere too, and the first answer wins. */
  #moveAll(lane: Lane, head: Flight, now: number): void {
    const left: Read[] = []
    for (const flight of lane.flights()) {
      const { read } = flight
      if (flight === head || flight.isMoved || read.isSettled) continue
      flight.isMoved = true
      if (read.flights > 1 || read.line !== undefined) continue
      this.count.moved++
      const other = read.form.isQuick ? this.#laneWithRoom() : undefined
      if (other) this.#send(other, read, now)
      else if (read.form.isQuick) left.push(read)
      else this.#dispatch(read, now)
    }
    // In their order, before all that came later.
    for (const read of left.toReversed()) this.#lobby.waitsFirst(read, this.#lobby.quick, now)
  }

  #end(lane: Lane): void {
    lane.isOver = true
    this.#lender.ghost(lane.slot)
    const ended = new Promise<void>((resolve) => (lane.onEmpty = both(lane.onEmpty, resolve)))
    void layGhost(this.#lender, lane.slot, ended)
  }

  /** Where the server does nothing for it, a lane's connection is broken: its reads are run again on others. */
  async #askAfter(lane: Lane): Promise<void> {
    const { slot, head } = lane
    const isBroken = await isSilent(this.#lender, slot)
    // It may have been answered meanwhile, and its session be somebody's.
    if (isBroken && !lane.isOver && lane.head === head) slot.session?.destroy()
  }
}

function both(one: (() => void) | undefined, other: () => void): () => void {
  return () => {
    one?.()
    other()
  }
}
