import { median, type Samples } from '../contest.js'
import type { Reader } from './readers.js'

/** The pool of a driver that is the better one here: Holdfast is compared with no other. */
export function better(samples: Samples, readers: readonly Reader[], key: string, best: 'most' | 'least'): string {
  const sign = best === 'most' ? -1 : 1
  const names = readers.filter((reader) => !reader.isHoldfast).map(({ name }) => name)
  const value = (name: string): number => sign * median((samples.get(name) ?? []).map((sample) => sample[key] ?? NaN))
  return names.sort((a, b) => value(a) - value(b))[0] as string
}

/** For each of Holdfast's, in the order of the table. */
export function eachOfOurs<T>(readers: readonly Reader[], make: (name: string) => T | readonly T[]): T[] {
  return readers.filter((reader) => reader.isHoldfast).flatMap(({ name }) => make(name))
}
