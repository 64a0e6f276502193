/** A pool at one moment. The places add up to `held`, which is never more than `ceiling`. */
export interface Stats {
  readonly name: string
  /** Sessions that the options allow. */
  readonly max: number
  /** Sessions that the pool may hold now: the least of `max`, what the server told, and what its refusals taught. */
  readonly ceiling: number
  readonly held: number
  readonly opening: number
  readonly idle: number
  readonly checking: number
  readonly lane: number
  readonly leased: number
  readonly closing: number
  readonly ghost: number
  readonly waiting: number
  /** Counts since the pool was created. */
  readonly total: {
    readonly opened: number
    readonly refused: number
    readonly acquired: number
    readonly released: number
    readonly retired: number
    readonly timedOut: number
    readonly retries: number
    readonly leaks: number
  }
  /** Whether reads share sessions, and why not. */
  readonly lanes: LaneStats
}

/** Reads that share sessions. */
export interface LaneStats {
  readonly on: boolean
  readonly reason?: string
  /** Reads under way on lanes at this moment. */
  readonly depth: number
  /** Reads of `query()` since the pool was created: how many shared a session, and how many got a lease. */
  readonly reads: { readonly lane: number; readonly lease: number }
  /** Why statements got a lease, with their count: "not a read", "user variable" ... */
  readonly reasons: Readonly<Record<string, number>>
  /** Sent a second time, elsewhere, since what stood before them took too long. */
  readonly moved: number
  /** Run again since the session they were on was lost. */
  readonly rerun: number
  /** Statements that look like reads and write: the server refused them on a READ ONLY session (1792), without effect. */
  readonly bounces: readonly { readonly shape: string; readonly count: number }[]
}
