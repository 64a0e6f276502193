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
  readonly lanes: { readonly on: boolean; readonly reason?: string }
}
