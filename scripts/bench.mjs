// `npm run bench`: Holdfast beside the drivers' own pools, on a private MariaDB 10.11.

import { spawnSync } from 'node:child_process'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { setup } from './setup.mjs'

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)))
// Below node_modules, so that the drivers are found from there, and git and the package know nothing of it.
const BUILT = join(ROOT, 'node_modules/.cache/holdfast-bench')
const HELP = `npm run bench -- [options]

  --quick          fewer and shorter rounds: under 40 s instead of under 3 minutes
  --only name      acquire, query, throughput, transactions, waiters, stream, cold, ledger (or several, with commas)
  --driver name    mysql2 or mariadb; both by default
  --json           all numbers as JSON, instead of tables
  --profile folder a .cpuprofile of each section
  --help`

const args = process.argv.slice(2)
if (args.includes('--help') || args.includes('-h')) console.log(HELP)
else process.exitCode = bench()

function bench() {
  setup(['mariadb-10.11'])
  if (!isBuilt()) return 1
  const main = join(BUILT, 'bench/main.js')
  return spawnSync(process.execPath, [main, ...args], { cwd: ROOT, stdio: 'inherit' }).status ?? 1
}

/** The benchmarks and the sources that they import, apart from `dist`: a profile shows them by name, and others may build meanwhile. */
function isBuilt() {
  rmSync(BUILT, { recursive: true, force: true })
  mkdirSync(BUILT, { recursive: true })
  writeFileSync(join(BUILT, 'package.json'), '{ "type": "module" }')
  const tsc = join(ROOT, 'node_modules/.bin/tsc')
  return spawnSync(tsc, ['-p', 'bench/tsconfig.json'], { cwd: ROOT, stdio: 'inherit' }).status === 0
}
