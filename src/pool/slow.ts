import type { Form } from './form.js'

// Whoever was here so lately may be here again in a moment.
const LATELY_MS = 5_000

interface Sighting {
  readonly form?: Form
  at: number
}

/**
 * How many sessions slow reads may have. While quick reads of other forms come they are left one; and while others come at all,
 * no form has them all, be its reads stuck at a locked table.
 */
export class SlowReads {
  readonly #ceiling: () => number
  #running = 0
  /** The last two, since the one that came last may be the one that asks. */
  #lately: [Sighting, Sighting] = [{ at: -Infinity }, { at: -Infinity }]

  constructor(ceiling: () => number) {
    this.#ceiling = ceiling
  }

  seen(form: Form, now: number): void {
    const last = this.#lately[0]
    if (last.form === form) last.at = now
    else this.#lately = [{ form, at: now }, last]
  }

  mayRun(form: Form, now: number): boolean {
    const others = this.#lately.filter((each) => each.form !== form && each.at > now - LATELY_MS)
    const areQuick = others.some((each) => each.form?.isQuick || each.form?.isInDoubt)
    const ceiling = this.#ceiling()
    if (this.#running >= Math.max(1, ceiling - (areQuick ? 1 : 0))) return false
    return others.length === 0 || form.running < Math.max(1, ceiling - 1)
  }

  begin(form: Form): void {
    this.#running++
    form.running++
  }

  end(form: Form): void {
    this.#running--
    form.running--
  }
}
