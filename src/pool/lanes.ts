import type { Timer } from '../clock.js'
import type { Result } from '../driver.js'
import type { HoldfastError } from '../errors.js'
import type { Fault } from '../faults/fault.js'
import type { Stats } from '../stats.js'
import { announceFault, announceRetry } from './announce.js'
import { Forms, LANE_WAIT_MS, LEAST_MS, type Form } from './form.js'
import { isSilent, layGhost } from './ghost.js'
import { Lane, type Flight } from './lane.js'
import { aborted, type Lender } from './lender.js'
import { LaneCount } from './lane-count.js'
import { Lobby } from './lobby.js'
import type { Read } from './read.js'
import { isBounce } from './read-only.js'
import { RoundTrip } from './round-trip.js'
import { SlowReads } from './slow.js'
import type { Slot } from './slot.js'

// All lanes have much to do, and it does not pass: one more session, though nobody waits for as long as a dial takes.
const BUSY_LOOKS = 5
// A head that runs for longer gets no more company, and those behind it are run elsewhere.
const OVERRUN_MS = 20
const OVERRUN_FACTOR = 4
const LOOK_EVERY_MS = 10
// A read that was answered elsewhere, and runs for so long, is ended on the server.
const UNWANTED_MS = 500
// Not a byte for so long: the server is asked through another session whether it is at work at all.
const SILENT_AFTER_MS = 1_000
// Each loss is of another session: more mean that the read itself ends them.
const MOST_LOSSES = 8
// A read that waits for a moment is less than a waiter of the queueLimit.
const FLOWING_COUNT = 10

/**
 * Who shares which session. Reads that are expected to be quick stand behind one another on few sessions; one of a form
 * that has not been seen, or that is slow, has a session to itself. Nobody stands behind more expected work than
 * LANE_WAIT_MS; whoever waits for a session of his own gets the next lane that runs empty.
 */
export class Lanes {
  readonly count: LaneCount = new LaneCount()
  readonly forms: Forms = new Forms()
  readonly #lender: Lender
  readonly #lobby: Lobby
  readonly #lanes: Lane[] = []
  readonly #lingers: boolean
  readonly #slow: SlowReads
  /** A session is waited for, in line with everybody. */
  #isAsking = false
  #busyLooks = 0
  #nextLook: Timer | undefined = undefined
  readonly now: () => number
  readonly roundTrip: RoundTrip = new RoundTrip()

  constructor(lender: Lender) {
    this.#lender = lender
    this.now = () => lender.clock.now()
    this.#lobby = new Lobby(lender)
    this.#slow = new SlowReads(() => lender.ceiling)
    // Who wants each session looked at before it is used, gets that.
    this.#lingers = lender.options.trustMs >= LOOK_EVERY_MS
    lender.share(this)
  }

  /** Reads that wait in no line of the lender's. */
  get waiting(): number {
    return this.#lobby.length - (this.#isAsking ? 1 : 0)
  }

  /** Lanes that nobody uses at the moment. */
  get idle(): number {
    return this.#lanes.filter((lane) => lane.depth === 0).length
  }

  stats(): Stats['lanes'] {
    const reason = this.#lender.noLane
    let depth = 0
    for (const lane of this.#lanes) depth += lane.depth
    return { on: reason === undefined, ...(reason !== undefined && { reason }), depth, ...this.count.stats() }
  }

  run(read: Read, now: number): void {
    // Reads get through, or are about to: a long line is soon a short one.
    const weight = this.#lanes.length > 0 || this.#lender.isFirstDial ? 1 / FLOWING_COUNT : 1
    const refusal = read.signal?.aborted ? aborted(read.signal) : this.#lender.refusal(this.waiting * weight)
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
      if (lane.depth === 0) this.#close(lane, this.now())
    }
    this.#ask()
  }

  /** A session is wanted, and none is idle: one that only might be used again soon goes home. False when there is none. */
  vacate(now: number): boolean {
    const lane = this.#lanes.find((each) => each.depth === 0)
    if (lane) this.#close(lane, now)
    return lane !== undefined
  }

  /** Nobody gets a session any more: who waits is refused, what is under way may end. */
  shut(error: HoldfastError): void {
    this.#lobby.dismiss(error)
    while (this.vacate(this.now()));
  }

  // ---- who goes where

  #dispatch(read: Read, now: number): void {
    const { form } = read
    this.#slow.seen(form, now)
    if (read.isSuspect) this.#alone(read, now)
    else if (form.isQuick) this.#join(read, now)
    else if (form.isSeen) this.#goSlow(read, now)
    else if (form.trial !== undefined && form.trial !== read) this.#lobby.waitsWithItsForm(read, now)
    else if (!form.isInDoubt) this.#try(read, now)
    else if (this.#slow.mayRun(form, now)) this.#try(read, now, form)
    else this.#lobby.waitsWithItsForm(read, now)
  }

  #try(read: Read, now: number, slow?: Form): void {
    read.form.trial = read
    if (slow) this.#slow.begin(slow)
    this.#alone(read, now, slow)
  }

  #join(read: Read, now: number): void {
    const { quick } = this.#lobby
    const lane = quick.length === 0 ? this.#laneWithRoom(now) : undefined
    if (lane) return this.#send(lane, read, now)
    this.#lobby.waits(read, now)
    this.#lender.wish(LANE_WAIT_MS + quick.length * LEAST_MS)
    this.#ask()
  }

  #goSlow(read: Read, now: number): void {
    const { form } = read
    if (!this.#slow.mayRun(form, now)) return this.#lobby.waitsWithItsForm(read, now)
    this.#slow.begin(form)
    this.#alone(read, now, form)
  }

  /** Its session may be another's. */
  #slowEnded(form: Form): void {
    this.#slow.end(form)
    const now = this.now()
    const mayRun = (each: Form): boolean => this.#slow.mayRun(each, now)
    for (let next = this.#lobby.nextOf(mayRun); next; next = this.#lobby.nextOf(mayRun)) this.#dispatch(next, now)
  }

  /** On a lane that nobody joins. `slow`: it counts among those of that form, whatever becomes of it. */
  #alone(read: Read, now: number, slow?: Form): void {
    const slot = this.#takeLane(now)
    if (slot) return this.#solo(slot, read, now, slow)
    this.#lobby.stand(read)
    const timeoutMs = Math.min(read.sendBy, read.dueAt) - now
    if (timeoutMs <= 0) {
      this.#lobby.late(read)
      return this.#neverSent(read, slow)
    }
    this.#lender.waitLane(timeoutMs, read.signal).then(
      (given) => this.#served(given, read, slow),
      (error: unknown) => {
        const { code } = error as HoldfastError
        if (code === 'POOL_ACQUIRE_TIMEOUT') this.#lobby.late(read, true)
        else this.#lobby.giveUp(read, error as HoldfastError)
        if (code === 'CONNECT_FAILED') this.shut(error as HoldfastError)
        this.#neverSent(read, slow)
      },
    )
  }

  #served(slot: Slot, read: Read, slow: Form | undefined): void {
    const now = this.now()
    // Others may have become slow while it stood in line.
    if (slow) this.#slow.end(slow)
    const isTooMany = slow !== undefined && !slow.isQuick && !this.#slow.mayRun(slow, now)
    if (slow) this.#slow.begin(slow)
    if (!read.isSettled && !isTooMany) return this.#solo(slot, read, now, slow)
    this.#lender.giveBack(slot, 'clean')
    if (!read.isSettled) {
      if (read.form.trial === read) read.form.trial = undefined
      this.#lobby.waitsWithItsForm(read, now)
    }
    this.#neverSent(read, slow)
  }

  #neverSent(read: Read, slow: Form | undefined): void {
    if (read.isSettled) this.#tried(read)
    if (slow) this.#slowEnded(slow)
  }

  #solo(slot: Slot, read: Read, now: number, slow: Form | undefined): void {
    if (slot.noLane !== undefined) {
      this.#lender.giveBack(slot, 'clean')
      this.#unshare()
      this.#turnAway(read)
      return this.#neverSent(read, slow)
    }
    // While it waited for the session, others of its form may have shown that it is quick after all.
    const lane = this.#open(slot, read.isSuspect || !read.form.isQuick)
    lane.slow = slow
    this.#send(lane, read, now)
  }

  #takeLane(now: number): Slot | undefined {
    return this.#lender.takeLane(now) ?? (this.vacate(now) ? this.#lender.takeLane(now) : undefined)
  }

  /** The one with the least to do; one more, when all have much. */
  #laneWithRoom(now: number): Lane | undefined {
    let lane = this.#leastBusy()
    for (; lane?.depth === 0 && !lane.slot.session?.alive; lane = this.#leastBusy()) this.#close(lane, now)
    if (lane?.isLight) return lane
    const slot = this.#lender.takeLane(now)
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
        const now = this.now()
        this.#pour(lane, now)
        if (lane.depth === 0) this.#close(lane, now)
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

  #close(lane: Lane, now: number): void {
    if (this.#drop(lane)) this.#lender.giveBack(lane.slot, 'clean', false, now)
    this.#ask()
  }

  /** It is no lane any more. True when its session is still ours to give back. */
  #drop(lane: Lane): boolean {
    const at = this.#lanes.indexOf(lane)
    if (at >= 0) this.#lanes.splice(at, 1)
    lane.isOpen = false
    if (lane.depth === 0) this.#emptied(lane)
    if (lane.isOver) return false
    lane.isOver = true
    return true
  }

  #emptied(lane: Lane): void {
    const { slow, onEmpty } = lane
    lane.slow = lane.onEmpty = undefined
    onEmpty?.()
    if (slow) this.#slowEnded(slow)
  }

  /** @internal */
  answered(flight: Flight, result: Result, tookMs: number, bytes: number, now: number): void {
    const { lane, read } = flight
    read.form.learn(tookMs, bytes, lane.isSolo)
    this.#tried(read)
    if (!read.isSettled) {
      this.count.answered++
      this.#lobby.settle(read).done(result)
    }
    this.#next(lane, now)
  }

  /** @internal */
  failed(flight: Flight, fault: Fault, tookMs: number, now: number): void {
    const { lane, read } = flight
    if (fault.session === 'lost') return this.#lost(lane, flight, fault)
    // A KILL QUERY may hit a read by chance; who has one of these ended has seen it run.
    const wasMeant = (lane.isSolo || flight.hasOverrun) && tookMs > OVERRUN_MS
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
    this.#next(lane, now)
  }

  #next(lane: Lane, now: number): void {
    if (lane.isOver) {
      if (lane.depth === 0) this.#drop(lane)
      return
    }
    if (lane.isOpen && this.#lobby.quick.length > 0) this.#pour(lane, now)
    if (lane.depth === 0 && !(this.#lingers && lane.isOpen && this.#lender.claims <= 0)) this.#close(lane, now)
  }

  /** Its reads are run again: the server guarantees that they changed nothing. */
  #lost(lane: Lane, flight: Flight, fault: Fault): void {
    const { read } = flight
    if (flight.wasHead || fault.kind === 'client') read.isSuspect = true
    if (this.#drop(lane)) {
      announceFault(this.#lender, lane.slot, fault)
      this.#lender.giveBack(lane.slot, 'lost')
    }
    if (!read.isSettled && read.flights === 0 && read.line === undefined) {
      // The driver failed over it: in company that may have been another's doing, alone it is its own.
      if (fault.kind === 'client' && lane.isSolo) this.#lobby.settle(read).failed(fault, lane.slot)
      else this.#again(read, fault, lane.slot)
    }
    if (read.isSettled) this.#tried(read)
    this.#ask()
  }

  #again(read: Read, fault: Fault, slot: Slot): void {
    if (++read.losses >= MOST_LOSSES) return this.#lobby.settle(read).failed(fault, slot)
    this.count.rerun++
    announceRetry(this.#lender, 'statement', read.losses + 1, fault, 0)
    const now = this.now()
    this.#lobby.enter(read, now)
    this.#dispatch(read, now)
  }

  /** A form's first read has ended, or runs for long: those who waited for it know now where they belong. */
  #tried(read: Read): void {
    const { form } = read
    if (form.trial !== read && !form.isQuick) return
    form.trial = undefined
    if (form.waiting.length === 0) return
    const now = this.now()
    for (const each of this.#lobby.leaveForm(form, now)) this.#dispatch(each, now)
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
    for (const lane of [...this.#lanes]) {
      const { slot, head } = lane
      if (slot.retire !== undefined || now >= slot.expiresAt) lane.isOpen = false
      if (head === undefined) this.#close(lane, now)
      if (head === undefined || lane.isOver) continue
      const patienceMs = head.read.isGivenUp ? OVERRUN_MS : Math.max(OVERRUN_MS, head.expectMs * OVERRUN_FACTOR)
      if (lane.runningMs(now) <= patienceMs) continue
      if (!head.hasOverrun) this.#overran(head, now)
      stuck.push(head)
    }
    this.#busyLooks = this.#leastBusy()?.isLight === false ? this.#busyLooks + 1 : 0
    if (this.#busyLooks >= BUSY_LOOKS) this.#lender.wish(Infinity)
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
    this.#countSlow(lane, head.read.form)
  }

  /** By now nobody depends on that session: a head that is wanted no more can be ended on the server. */
  #help(head: Flight, now: number): void {
    const { lane, read } = head
    if (lane.isOver) return
    // One that was answered elsewhere is nearly always about to be answered here.
    if (read.isGivenUp || (read.isSettled && lane.runningMs(now) > UNWANTED_MS)) this.#end(lane)
    else if (lane.isSilent(now, SILENT_AFTER_MS)) void this.#askAfter(lane)
  }

  #countSlow(lane: Lane, form: Form): void {
    if (lane.slow) return
    lane.slow = form
    this.#slow.begin(form)
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
      const other = read.form.isQuick ? this.#laneWithRoom(now) : undefined
      if (other) this.#send(other, read, now)
      else if (read.form.isQuick) left.push(read)
      else this.#dispatch(read, now)
    }
    // In their order, before all that came later.
    for (const read of left.toReversed()) this.#lobby.waits(read, now, true)
  }

  #end(lane: Lane): void {
    lane.isOver = true
    this.#lender.ghost(lane.slot)
    const ended = new Promise<void>((resolve) => (lane.onEmpty = resolve))
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
