export const DRIVERS = ['mysql2', 'mariadb'] as const
export type DriverName = (typeof DRIVERS)[number]

/** The pool that comes with the driver, or Holdfast's over the same driver. */
export type Side = 'driver' | 'holdfast'

/**
 * well: every call got what it asked for. told: not every one, but the error says truly what became of the work.
 * failed: the caller got an error that leaves the rest to him, or nothing at all.
 */
export type Mark = 'well' | 'told' | 'failed'

/** What one pool made of one failure. */
export interface Outcome {
  readonly mark: Mark
  readonly text: string
  /** For programs: counts, and times in milliseconds. */
  readonly facts: Readonly<Record<string, unknown>>
  /** Of Holdfast only: what it promises here, and whether it was kept. */
  readonly promises?: Readonly<Record<string, boolean>>
}

export type Topic = '1226' | '2006' | '2013' | 'leak' | 'deadlock' | 'own'

/** One failure, met by both. */
export interface Row {
  readonly topic: Topic
  /** What we broke. */
  readonly what: string
  readonly outcomes: Readonly<Record<Side, Outcome>>
}

export async function bothSides<T>(meet: (side: Side) => Promise<T>): Promise<Record<Side, T>> {
  const [driver, holdfast] = await Promise.all([meet('driver'), meet('holdfast')])
  return { driver, holdfast }
}

export function brokenPromises(outcome: Outcome): string[] {
  return Object.entries(outcome.promises ?? {}).flatMap(([promise, kept]) => (kept ? [] : [promise]))
}

export function seconds(ms: number): string {
  return ms < 100 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(ms < 9_950 ? 1 : 0)} s`
}
