import { AbortGroups, Slices } from '../abort.js'
import { withoutStack, type HoldfastError } from '../errors.js'
import { Deadlines } from './deadlines.js'
import type { Form } from './form.js'
import { aborted, type Lender } from './lender.js'
import type { Read } from './read.js'
import { Line } from './waiter.js'

// The deadline of one whose turn to be told of it has not come yet.
const DUE = -Infinity

/** Reads that wait, and when they have waited for too long: for a session, or for the answer. */
export class Lobby {
  /** For room on a lane. */
  readonly quick: Line<Read> = new Line<Read>()
  /** Forms of which reads wait: for the first of them to be tried, or for a session. Who comes first here is served first. */
  readonly #forms = new Set<Form>()
  readonly #lender: Lender
  readonly #deadlines: Deadlines<Read>
  readonly #aborts: AbortGroups<Read>
  /** Many are given up together. */
  readonly #ends = new Slices<() => void>((end) => withoutStack(end))

  constructor(lender: Lender) {
    this.#lender = lender
    this.#deadlines = new Deadlines(lender.clock, (due) => {
      for (const read of due) read.deadline = DUE
      this.#each(due, (read) => {
        if (read.deadline === DUE) this.late(read)
      })
    })
    this.#aborts = new AbortGroups((reads) =>
      this.#each(reads, (read) => this.giveUp(read, aborted(read.signal as AbortSignal))),
    )
  }

  get length(): number {
    let length = this.quick.length
    for (const form of this.#forms) length += form.waiting.length
    return length
  }

  /** A read came in, or is to be run again: from now on it may wait for a session for as long as for any. */
  enter(read: Read, now: number): void {
    read.sendBy = now + this.#lender.options.acquireTimeoutMs
    if (read.signal && read.losses === 0) this.#aborts.add(read.signal, read)
  }

  /** Behind those who wait for room, or ahead of them. */
  waits(read: Read, now: number, isFirst = false): void {
    if (isFirst) this.quick.joinFirst(read)
    else this.quick.join(read)
    this.#expect(read, now)
  }

  waitsWithItsForm(read: Read, now: number): void {
    this.#forms.add(read.form)
    read.form.waiting.join(read)
    this.#expect(read, now)
  }

  /** Those of a form, when it is known where they belong; but for those whose time is up, who are about to be told. */
  leaveForm(form: Form, now: number): Read[] {
    if (!this.#forms.has(form)) return []
    const left = form.waiting.leaveAll((read) => read.deadline > now)
    if (form.waiting.length === 0) this.#forms.delete(form)
    return left
  }

  /** The next whose form may have a session. */
  nextOf(mayRun: (form: Form) => boolean): Read | undefined {
    for (const form of this.#forms) {
      const read = form.waiting.first
      if (read === undefined) this.#forms.delete(form)
      else if (form.trial === undefined && mayRun(form)) {
        form.waiting.leave(read)
        // The other forms come first now.
        this.#forms.delete(form)
        this.#forms.add(form)
        return read
      }
    }
    return undefined
  }

  leaveAll(): Read[] {
    const lines = [this.quick, ...[...this.#forms].map((form) => form.waiting)]
    this.#forms.clear()
    return lines.flatMap((line) => line.leaveAll())
  }

  /** Nobody who waits gets a session any more. What is under way as well may still be answered. */
  dismiss(error: HoldfastError): void {
    const left = this.leaveAll().filter((read) => read.flights === 0)
    this.#each(left, (read) => this.giveUp(read, error))
  }

  /** It was sent: only its own deadline counts now. */
  sent(read: Read, now: number): void {
    this.stand(read)
    if (read.dueAt === Infinity) return
    read.deadline = read.dueAt
    this.#deadlines.add(read, now)
  }

  /** Its time is kept elsewhere. */
  stand(read: Read): void {
    if (read.deadline === Infinity) return
    this.#deadlines.remove(read)
    read.deadline = Infinity
  }

  /** Nothing of it remains but what is under way: that is dropped on arrival. */
  settle(read: Read): Read {
    read.isSettled = true
    this.stand(read)
    read.line?.leave(read)
    if (read.signal) this.#aborts.remove(read.signal, read)
    return read
  }

  giveUp(read: Read, error: HoldfastError): void {
    if (read.isSettled) return
    read.isGivenUp = true
    this.settle(read).refused(error)
  }

  /** `isCounted`: it stood in the lender's line. */
  late(read: Read, isCounted = false): void {
    if (read.isSettled) return
    read.deadline = Infinity
    if (read.flights > 0) {
      read.isGivenUp = true
      return this.settle(read).late()
    }
    if (!isCounted) this.#lender.count('timedOut')
    const timeoutMs = Math.min(this.#lender.options.acquireTimeoutMs, read.timeoutMs)
    this.settle(read).refused(this.#lender.acquireTimeout(timeoutMs))
  }

  #each(reads: Iterable<Read>, end: (read: Read) => void): void {
    this.#ends.add(tasks(reads, end))
  }

  /** One that is under way as well may wait for as long as it likes. */
  #expect(read: Read, now: number): void {
    this.stand(read)
    read.deadline = read.flights > 0 ? read.dueAt : Math.min(read.sendBy, read.dueAt)
    this.#deadlines.add(read, now)
  }
}

function* tasks(reads: Iterable<Read>, end: (read: Read) => void): Generator<() => void> {
  for (const read of reads) yield () => end(read)
}
