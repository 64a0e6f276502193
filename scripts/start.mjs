// `npm start`: what the driver's own pool and Holdfast make of the same failures, on a real server. Runs on a fresh clone, so
// nothing but Node's own modules is imported before the set-up is done.

import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, realpathSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

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

/** @param {string[]} args @returns {{ help: true } | import('../dist/demo/main.js').Request} */
export function readArguments(args) {
  let drivers
  let json = false
  let url
  const choose = (...chosen) => {
    if (drivers && String(drivers) !== String(chosen)) throw new UsageError('--driver and --all exclude each other')
    drivers = chosen
  }
  const words = args.flatMap((arg) => (/^--\w+=/.test(arg) ? [arg.slice(0, arg.indexOf('=')), arg.slice(arg.indexOf('=') + 1)] : [arg]))
  for (let word = words.shift(); word !== undefined; word = words.shift()) {
    if (word === '--help' || word === '-h') return { help: true }
    if (word === '--json') json = true
    else if (word === '--all') choose(...DRIVERS)
    else if (word === '--driver') {
      const name = words.shift()
      if (!DRIVERS.includes(name)) throw new UsageError(`--driver must be one of ${DRIVERS.join(', ')}`)
      choose(name)
    } else if (word.startsWith('-')) throw new UsageError(`unknown option ${word}`)
    // What is neither may hold a password: it is not repeated.
    else if (url !== undefined) throw new UsageError('one URL at a time')
    else if (!/^(mysql|mariadb):\/\//.test(word)) throw new UsageError('a URL must look like mysql://user:password@host:3306/database')
    else url = word
  }
  return { drivers: drivers ?? [DRIVERS[0]], json, ...(url !== undefined && { url }) }
}

async function start(args) {
  const request = readArguments(args)
  if ('help' in request) return (console.log(HELP), 0)
  if (!isRecent(process.versions.node)) throw new Error(`Holdfast needs Node ${NODE_AT_LEAST.join('.')} or later; this is ${process.version}`)
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
  for (const [signal, number] of [['SIGINT', 2], ['SIGTERM', 15], ['SIGHUP', 1]]) process.once(signal, () => process.exit(128 + number))
  start(process.argv.slice(2)).then(
    (status) => process.exit(status),
    (error) => {
      console.error(error instanceof UsageError ? `${error.message}\n\n${HELP}` : error.message)
      process.exit(2)
    },
  )
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) run()
