// Started by scripts/bench.mjs, which has built it and has the server at hand.

import { availableParallelism, cpus, loadavg, totalmem } from 'node:os'
import { performance } from 'node:perf_hooks'
import { argv, execPath, stdout } from 'node:process'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { installedDriver } from '../src/drivers/installed.js'
import { startProcess } from '../src/testing/process.js'
import { availableServers, startServer, type Account, type TestServer } from '../src/testing/server.js'
import { ITEMS, type DriverName, type Setting } from './pools.js'
import { SECTIONS } from './sections.js'
import { render, WIDTH, wrap, type Table } from './table.js'

const DRIVERS: readonly DriverName[] = ['mysql2', 'mariadb']
const FLAGS = ['--max-connections=500']
const PATIENCE_MS = 300_000
const ENDS_WITHIN_MS = 10_000

interface Options {
  readonly json: boolean
  readonly quick: boolean
  readonly names: readonly string[]
  readonly drivers: readonly DriverName[]
  readonly profile: string | undefined
}

class UsageError extends Error {}

try {
  await bench(readOptions())
} catch (error) {
  console.error(error instanceof UsageError ? `${error.message}; see npm run bench -- --help` : error)
  process.exitCode = 1
}

async function bench({ json, quick, names, drivers, profile }: Options): Promise<void> {
  const started = performance.now()
  const colours = stdout.isTTY && !process.env['NO_COLOR']
  await using server = await startServer('mariadb-10.11', { flags: FLAGS })
  const account = await server.createAccount()
  await fill(server, account.database)
  const machine = describe(server)
  if (!json) console.log(heading(machine, quick))

  const results: { section: string; server: string; driver: DriverName; tookMs: number; tables: Table[] }[] = []
  const run = async (name: string, at: TestServer, { config }: Account): Promise<void> => {
    for (const driver of SECTIONS.get(name)?.perDriver ? drivers : drivers.slice(0, 1)) {
      const began = performance.now()
      const tables = await runSection(name, { ...config, driver, drivers, server: nameOf(at), quick }, profile)
      const tookMs = Math.round(performance.now() - began)
      results.push({ section: name, server: nameOf(at), driver, tookMs, tables })
      if (!json) for (const table of tables) console.log(`\n${render(table, colours)}`)
    }
  }
  for (const name of names) {
    await run(name, server, account)
    for (const kind of quick ? [] : (SECTIONS.get(name)?.alsoOn ?? [])) {
      if (availableServers().includes(kind)) {
        await using other = await startServer(kind, { flags: FLAGS })
        await run(name, other, await other.createAccount())
      } else if (!json) console.log(`\n${name}: not run on ${kind}, which is not here: node scripts/setup.mjs`)
    }
  }
  const tookS = Math.round((performance.now() - started) / 1000)
  if (json) console.log(JSON.stringify({ machine, quick, tookS, results }, undefined, 2))
  else
    console.log(`\n${tookS} s. To reproduce: ${['npm run bench --', ...argv.slice(2)].join(' ').replace(/ --$/, '')}`)
}

function readOptions(): Options {
  try {
    const { values } = parseArgs({
      args: argv.slice(2),
      options: {
        json: { type: 'boolean', default: false },
        quick: { type: 'boolean', default: false },
        only: { type: 'string', multiple: true },
        driver: { type: 'string', multiple: true },
        profile: { type: 'string' },
      },
    })
    const { json, quick, only, driver, profile } = values
    const names = chosen('--only', only, [...SECTIONS.keys()])
    return { json, quick, names, drivers: chosen('--driver', driver, DRIVERS), profile }
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error))
  }
}

function chosen<Name extends string>(
  option: string,
  given: readonly string[] | undefined,
  known: readonly Name[],
): Name[] {
  if (given === undefined) return [...known]
  const asked = given.flatMap((names) => names.split(','))
  const unknown = asked.filter((name) => !known.includes(name as Name))
  if (unknown.length > 0) throw new Error(`${option}: there is no ${unknown.join(', ')}; known are ${known.join(', ')}`)
  return known.filter((name) => asked.includes(name))
}

async function runSection(name: string, setting: Setting, profile: string | undefined): Promise<Table[]> {
  const profiling =
    profile === undefined
      ? []
      : [
          '--cpu-prof',
          `--cpu-prof-dir=${profile}`,
          `--cpu-prof-name=${name}-${setting.server.replace(' ', '-')}-${setting.driver}.cpuprofile`,
        ]
  await using child = startProcess(new URL('child.js', import.meta.url), {
    args: [name, JSON.stringify(setting)],
    node: [execPath, '--expose-gc', ...profiling],
  })
  const tables = await child.next<Table[]>(PATIENCE_MS)
  const exit = await Promise.race([child.exited, sleep(ENDS_WITHIN_MS, undefined, { ref: false })])
  if (exit?.code !== 0)
    throw new Error(`${name}: the process ${exit ? `ended with ${exit.code}` : 'does not end'}:\n${child.output}`)
  return tables
}

async function fill(server: TestServer, database: string): Promise<void> {
  await server.query(
    `CREATE TABLE ${database}.item (id INT PRIMARY KEY, name VARCHAR(40) NOT NULL, total DOUBLE NOT NULL)`,
  )
  await server.query(
    `INSERT INTO ${database}.item SELECT seq, CONCAT('item ', seq), seq * 1.5 FROM ${database}.seq_1_to_${ITEMS}`,
  )
  await server.query(`CREATE TABLE ${database}.counter (id INT PRIMARY KEY, n INT NOT NULL)`)
  await server.query(`INSERT INTO ${database}.counter SELECT seq, 0 FROM ${database}.seq_1_to_100`)
}

interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly memoryGb: number
  readonly load: number
  readonly node: string
  readonly server: string
  readonly mysql2: string
  readonly mariadb: string
}

function describe(server: TestServer): Machine {
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    memoryGb: Math.round(totalmem() / 2 ** 30),
    load: Math.round((loadavg()[0] ?? 0) * 100) / 100,
    node: process.version,
    server: nameOf(server),
    mysql2: installedDriver('mysql2').version,
    mariadb: installedDriver('mariadb').version,
  }
}

function nameOf({ flavour, version }: TestServer): string {
  return `${flavour === 'mariadb' ? 'MariaDB' : 'MySQL'} ${version}`
}

function heading(machine: Machine, quick: boolean): string {
  const { cpu, cores, memoryGb, load, node, server, mysql2, mariadb } = machine
  return [
    `${cpu}, ${cores} cores, ${memoryGb} GB, load ${load} | Node ${node} | ${server} on loopback`,
    `mysql2 ${mysql2}, mariadb ${mariadb}, Holdfast of this tree${quick ? ' | quick: fewer and shorter rounds' : ''}`,
    ...(load > cores
      ? ['The machine is busy with other things as well: times are too long, and the ratios say more.']
      : []),
    ...wrap(
      'Each section runs in a process of its own; its contenders take turns (A B C, B C A, ...). Numbers are medians over the rounds, with the ratio to the first row, round by round, beside them. CPU is that of the client process with all its threads.',
      WIDTH,
    ),
  ].join('\n')
}
