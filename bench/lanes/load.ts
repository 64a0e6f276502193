import { performance } from 'node:perf_hooks'
import { quantile } from '../contest.js'

/** Runs before anything counts: until the crowd has found its order, and the code that a collection made cold is hot again. */
export const LEAD_MS = 400

/** Callers who each ask again when they are answered. */
export interface Group {
  readonly callers: number
  call(turn: number, caller: number): Promise<unknown>
}

interface Done {
  readonly perSecond: number
  /** Of all that were asked while it counted, however long the answer took. */
  readonly times: Float64Array
}

export interface Load<Name extends string> {
  readonly done: Readonly<Record<Name, Done>>
  /** CPU of this process for each call, whichever group it is of. */
  readonly cpuUs: number
}

/** What groups of callers get done side by side in some time. */
export async function load<Name extends string>(
  groups: Readonly<Record<Name, Group>>,
  lastsMs: number,
): Promise<Load<Name>> {
  const opensAt = performance.now() + LEAD_MS
  const endsAt = opensAt + lastsMs
  const tallies = Object.fromEntries(Object.keys(groups).map((name) => [name, new Tally()])) as Record<Name, Tally>
  let opened: Look | undefined
  let ended: Look | undefined
  const one = async (group: Group, tally: Tally, caller: number): Promise<void> => {
    for (let now = performance.now(); now < endsAt;) {
      const started = now
      await group.call(tally.turn++, caller)
      now = performance.now()
      if (now >= opensAt) opened ??= look(tallies, now)
      if (now >= endsAt) ended ??= look(tallies, now)
      tally.answered++
      if (started >= opensAt) tally.times.push(now - started)
    }
  }
  const names = Object.keys(groups) as Name[]
  await Promise.all(
    names.flatMap((name) =>
      Array.from({ length: groups[name].callers }, (_, caller) => one(groups[name], tallies[name], caller)),
    ),
  )
  const [from, to] = [opened ?? look(tallies, opensAt), ended ?? look(tallies, performance.now())]
  const countOf = (name: Name): number => (to.answered[name] ?? 0) - (from.answered[name] ?? 0)
  const cpu = to.cpu.user + to.cpu.system - from.cpu.user - from.cpu.system
  const done = Object.fromEntries(
    names.map((name) => [
      name,
      {
        perSecond: (countOf(name) / (to.at - from.at)) * 1000,
        times: Float64Array.from(tallies[name].times).sort(),
      },
    ]),
  ) as Record<Name, Done>
  return { done, cpuUs: cpu / names.reduce((sum, name) => sum + countOf(name), 0) }
}

export function quantiles(times: Float64Array): { p50Ms: number; p99Ms: number } {
  return { p50Ms: quantile(times, 0.5), p99Ms: quantile(times, 0.99) }
}

class Tally {
  turn = 0
  answered = 0
  readonly times: number[] = []
}

interface Look {
  readonly at: number
  readonly cpu: NodeJS.CpuUsage
  readonly answered: Readonly<Record<string, number>>
}

function look(tallies: Readonly<Record<string, Tally>>, at: number): Look {
  const answered = Object.fromEntries(Object.entries(tallies).map(([name, tally]) => [name, tally.answered]))
  return { at, cpu: process.cpuUsage(), answered }
}
