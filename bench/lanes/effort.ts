import { takeTurns, type Samples, type Sample } from '../contest.js'
import type { Setting } from '../pools.js'

// Of each contender one that warms up, and then these.
const ROUNDS = 3
const WARM_UP_MS = 150

/** What a contender does for some time. */
export interface Runner {
  readonly name: string
  run(lastsMs: number): Promise<Sample>
}

/** All in turn: for so long each, or for so long when it shall be quick. */
export function race(
  { quick }: Setting,
  runners: readonly Runner[],
  lastsMs: number,
  quickMs: number = lastsMs / 2,
): Promise<Samples> {
  return takeTurns(
    runners.map((runner) => ({
      name: runner.name,
      round: (isWarmUp) => runner.run(isWarmUp ? WARM_UP_MS : quick ? quickMs : lastsMs),
    })),
    ROUNDS,
  )
}
