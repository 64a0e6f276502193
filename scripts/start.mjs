// `npm start`: what the driver's own pool and Holdfast make of the same failures, on a real server. Runs on a fresh clone, so
// nothing but Node's own modules is imported before the set-up is done.

import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, realpathSync, statSync } from 'node:fs'
import { constants } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)))
const DRIVERS = ['mysql2', 'mariadb']
const NODE_AT_LEAST = [20, 19]

const HELP = `Breaks connections to a real database, and shows what the driver's own pool and Holdfast make of it.

  npm start                                        on private MariaDB servers, which are gone afterwards
  npm start -- mysql://user:password@host/db       the harmless part, on your own server

  --driver mysql2|mariadb   the driver whose pool is compared, and on which Holdfast stands (default: mysql2)
  --all                     both drivers, one after the other
  --json                    results for programs, on stdout
  --help                    this

Progress goes to stderr, results to stdout. Exit status: 0 when Holdfast did all that it promises, 1 when it did not,
2 when this could not be started. NO_COLOR is honoured.`

class UsageError extends Error {}

const OPTIONS = {
  driver: { type: 'string' },
  all: { type: 'boolean' },
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
}

/** @param {string[]} args @returns {'help' | import('../dist/demo/main.js').Request} */
export function readArguments(args) {
  const { values, positionals } = parse(args)
  const { driver, all, json = false, help } = values
  const [url] = positionals
  if (help) return 'help'
  if (driver !== undefined && !DRIVERS.includes(driver))
    throw new UsageError(`--driver must be ${DRIVERS.join(' or ')}`)
  if (driver !== undefined && all) throw new UsageError('--driver and --all exclude each other')
  // What is not a URL may still hold a password: it is not repeated.
  if (positionals.length > 1) throw new UsageError('one URL at a time')
  if (url !== undefined && !/^(mysql|mariadb):\/\//.test(url))
    throw new UsageError('a URL must look like mysql://user:password@host:3306/database')
  return { drivers: all ? DRIVERS : [driver ?? DRIVERS[0]], json, ...(url !== undefined && { url }) }
}

function parse(args) {
  try {
    return parseArgs({ args, options: OPTIONS, allowPositionals: true })
  } catch (error) {
    throw new UsageError(error.message.replace(/\. To specify .*/s, ''))
  }
}

async function start(args) {
  const request = readArguments(args)
  if (request === 'help') return (console.log(HELP), 0)
  if (!isRecent(process.versions.node))
    throw new Error(`Holdfast needs Node ${NODE_AT_LEAST.join('.')} or later; this is ${process.version}`)
  const { setup } = await import('./setup.mjs')
  setup(request.url === undefined ? ['mariadb-10.11'] : [])
  build()
  const { main } = await import('../dist/demo/main.js')
  return main(request)
}

function isRecent(version) {
  const [major, minor] = version.split('.').map(Number)
  return major > NODE_AT_LEAST[0] || (major === NODE_AT_LEAST[0] && minor >= NODE_AT_LEAST[1])
}

/** Only if something is missing or older than its source. */
function build() {
  const sources = readdirSync(join(ROOT, 'src'), { recursive: true }).filter((file) => /(?<!\.test)\.ts$/.test(file))
  const timeOf = (file) => (existsSync(join(ROOT, file)) ? statSync(join(ROOT, file)).mtimeMs : 0)
  const isStale = (file) => timeOf(join('dist', file.replace(/\.ts$/, '.js'))) < timeOf(join('src', file))
  if (!sources.some(isStale)) return
  console.error('building dist')
  const tsc = join(ROOT, 'node_modules/typescript/bin/tsc')
  spawnSync(process.execPath, [tsc, '-p', 'tsconfig.build.json'], { cwd: ROOT, stdio: ['ignore', 2, 2] })
  if (sources.some(isStale)) throw new Error('dist could not be built')
}

/** `exit` runs what kills servers and child processes, and removes their folders. */
function run() {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
    process.once(signal, () => process.exit(128 + constants.signals[signal]))
  start(process.argv.slice(2)).then(
    (status) => process.exit(status),
    (error) => {
      console.error(error instanceof UsageError ? `${error.message}\n\n${HELP}` : error.message)
      process.exit(2)
    },
  )
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) run()
