// `npm run bench`: Holdfast beside the drivers' own pools, on a private MariaDB 10.11 (lanes on MySQL 9.7 as well).

import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { setup } from './setup.mjs'

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)))
// Below node_modules, so that the drivers are found from there, and git and the package know nothing of it.
const CACHE = join(ROOT, 'node_modules/.cache')
const HELP = `npm run bench -- [options]

  --quick           fewer and shorter rounds: under 3 minutes instead of under 8
  --only name       acquire, query, throughput, transactions, waiters, stream, cold, ledger, lanes (or several, with commas)
  --driver name     mysql2 or mariadb; both by default
  --json            all numbers as JSON, instead of tables
  --profile folder  a .cpuprofile of each section
  --help`

const args = process.argv.slice(2)
if (args.includes('--help') || args.includes('-h')) console.log(HELP)
else process.exitCode = bench()

function bench() {
  setup(['mariadb-10.11'])
  mkdirSync(CACHE, { recursive: true })
  const built = mkdtempSync(join(CACHE, 'holdfast-bench-'))
  try {
    return build(built) || run(process.execPath, [join(built, 'bench/main.js'), ...args])
  } finally {
    rmSync(built, { recursive: true, force: true })
  }
}

/** The benchmarks and the sources that they import, apart from `dist`: others may build that meanwhile. */
function build(folder) {
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
  return run(join(ROOT, 'node_modules/.bin/tsc'), [
    '-p',
    'bench/tsconfig.json',
    '--noEmit',
    'false',
    '--outDir',
    folder,
  ])
}

function run(program, args) {
  return spawnSync(program, args, { cwd: ROOT, stdio: 'inherit' }).status ?? 1
}
