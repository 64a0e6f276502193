import { formOf } from '../sql/shape.js'
import type { LaneStats } from '../stats.js'
import type { Form } from './form.js'

const MOST_SHAPES = 50
const NOT_A_READ = 'not a read'

/** What became of reads since the pool was made. */
export class LaneCount {
  /** By the server, on a lane. */
  answered = 0
  moved = 0
  rerun = 0
  readonly #bounces = new Map<Form, number>()
  readonly #leases = new Map<string, number>()

  /** The server refused it on a READ ONLY session: from now on those of its form get a lease. */
  bounced(form: Form): void {
    form.writes = true
    if (this.#bounces.size < MOST_SHAPES || this.#bounces.has(form))
      this.#bounces.set(form, (this.#bounces.get(form) ?? 0) + 1)
  }

  leased(reason: string): void {
    this.#leases.set(reason, (this.#leases.get(reason) ?? 0) + 1)
  }

  stats(): Pick<LaneStats, 'reads' | 'reasons' | 'moved' | 'rerun' | 'bounces'> {
    let lease = 0
    for (const [reason, count] of this.#leases) if (reason !== NOT_A_READ) lease += count
    return {
      reads: { lane: this.answered, lease },
      reasons: Object.fromEntries(this.#leases),
      moved: this.moved,
      rerun: this.rerun,
      bounces: [...this.#bounces].map(([form, count]) => ({ shape: formOf(form.sql), count })),
    }
  }
}
