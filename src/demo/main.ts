import { performance } from 'node:perf_hooks'
import { accountLimit } from './account-limit.js'
import { deadlock } from './deadlock.js'
import { idle } from './idle.js'
import { Lab, startServers } from './lab.js'
import { leak } from './leak.js'
import { killed, reset } from './lost.js'
import type { DriverName, Row } from './outcome.js'
import { ownServer } from './own-server.js'
import { isAsPromised, jsonOf, lookFor, textOf, type Report } from './report.js'
import { restarted } from './restart.js'

/** What the command line asked for. */
export interface Request {
  readonly drivers: readonly DriverName[]
  readonly json: boolean
  /** The user's own server; without it, private ones are started. */
  readonly url?: string
}

/** Resolves with the exit status: 0 when Holdfast did all that it promises, 1 when it did not. */
export async function main({ drivers, json, url }: Request): Promise<number> {
  const began = performance.now()
  const say = (text: string): void => {
    console.error(`${((performance.now() - began) / 1000).toFixed(1).padStart(5)} s  ${text}`)
  }
  const reports = url === undefined ? await onPrivateServers(drivers, say) : await onOwnServer(url, drivers, say)
  const tookMs = performance.now() - began
  console.log(json ? jsonOf(reports, tookMs) : textOf(reports, lookFor(process.stdout, process.env)))
  return isAsPromised(reports) ? 0 : 1
}

async function onPrivateServers(drivers: readonly DriverName[], say: (text: string) => void): Promise<Report[]> {
  say('starting three private MariaDB servers in temporary folders')
  await using servers = await startServers()
  const reports: Report[] = []
  for (const driver of drivers) {
    if (drivers.length > 1) say(`with the driver ${driver}`)
    const rows = await breakAll(new Lab(driver, servers, say))
    reports.push({ driver, server: `MariaDB ${servers.steady.version}`, rows })
  }
  return reports
}

async function onOwnServer(
  url: string,
  drivers: readonly DriverName[],
  say: (text: string) => void,
): Promise<Report[]> {
  const reports: Report[] = []
  for (const driver of drivers) reports.push(await ownServer(url, driver, say))
  return reports
}

/** What does not disturb each other at the same time, the rest in turn. */
async function breakAll(lab: Lab): Promise<Row[]> {
  const tracks = [[accountLimit, deadlock], [idle], [leak], [killed, reset, restarted]]
  const rows = await Promise.all(
    tracks.map(async (track) => {
      const rows: Row[] = []
      for (const scenario of track)
        rows.push(...(await scenario(lab).catch((error: unknown) => stuck(scenario.name, error))))
      return rows
    }),
  )
  return rows.flat()
}

/** Says nothing about Holdfast, so it is no broken promise. */
function stuck(where: string, error: unknown): never {
  throw new Error(`the demonstration got stuck (${where}): ${(error as Error).message}`, { cause: error })
}
