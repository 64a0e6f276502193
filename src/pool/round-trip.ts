// A path that has become quick again is believed within some hundred answers.
const DECAY = 0.98
// One answer that took long may be the server's doing; several in a row are the network's.
const GROWTH = 1.25
const GROWTH_MS = 1

/**
 * For how long an answer may be under way without the server having anything to do with it. Not the least: where the delay
 * varies, what lies above the least is not the server's work either.
 */
export class RoundTrip {
  #ms: number | undefined = undefined

  get ms(): number {
    return this.#ms ?? 0
  }

  /** What one answer took that nothing else was ahead of. `isQuick`: the server had next to nothing to do for it. */
  took(ms: number, isQuick: boolean): void {
    if (this.#ms === undefined) this.#ms = ms
    else if (isQuick) this.#ms = Math.max(this.#ms * DECAY, ms)
    else if (ms > this.#ms) this.#ms = Math.min(ms, this.#ms * GROWTH + GROWTH_MS)
  }
}
