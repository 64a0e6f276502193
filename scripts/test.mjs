// `npm test`: everything that must hold, from a fresh clone. `npm test -- <vitest arguments>` runs the matching tests only.

import { spawnSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { runVitest } from './run-vitest.mjs'
import { KINDS, setup, wantedKinds } from './setup.mjs'

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)))
const args = process.argv.slice(2)

const env = { ...process.env, PATH: `${join(ROOT, 'node_modules/.bin')}${delimiter}${process.env.PATH}` }
if (process.env.CI) {
  env.NO_COLOR = '1'
  delete env.FORCE_COLOR
}

/** @type {import('./setup.mjs').Servers} */
let servers = {}
const tests = { passed: 0, failed: 0, skipped: 0 }

/** Each throws when it fails. */
const steps = {
  'set-up': () => {
    servers = setup(wantedKinds())
  },
  types: () => command('tsc', '--noEmit', '-p', 'tsconfig.json'),
  build: () => {
    rmSync(join(ROOT, 'dist'), { recursive: true, force: true })
    command('tsc', '-p', 'tsconfig.build.json')
  },
  lint: () => command('oxlint', '--type-aware', '--deny-warnings'),
  format: () => command('prettier', '--check', '.'),
  tests: () => {
    const { ok, ...counts } = runVitest({ args, env })
    Object.assign(tests, counts)
    if (!ok) throw new Error('')
  },
  package: () => {
    command('publint', '--strict')
    command('attw', '--pack', '.', '--profile', 'esm-only')
  },
  'unused code': () => command('knip'),
}

const started = performance.now()
const failedStep = run(args.length > 0 ? ['set-up', 'build', 'tests'] : Object.keys(steps))
conclude()
process.exitCode = failedStep ? 1 : 0

function run(names) {
  for (const name of names) {
    const start = performance.now()
    try {
      steps[name]()
    } catch (error) {
      if (error.message) console.log(error.message)
      console.log(`✗ ${name} (${seconds(start)})`)
      return name
    }
    console.log(`✓ ${name} (${seconds(start)})`)
  }
  return undefined
}

/** Quiet, unless it fails. */
function command(program, ...words) {
  const { status, error, stdout, stderr } = spawnSync(program, words, {
    cwd: ROOT,
    env,
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  })
  if (error) throw error
  if (status !== 0) throw new Error(`${stdout}${stderr}\n\`${[program, ...words].join(' ')}\` failed`)
}

function conclude() {
  const asked = wantedKinds()
  const had = asked.filter((kind) => servers[kind]?.ok)
  console.log(`\nServers: ${had.map((kind) => `${kind} (${servers[kind].version})`).join(', ') || 'none'}`)
  const leftOut = KINDS.filter((kind) => !asked.includes(kind))
  if (leftOut.length > 0) console.log(`Left out by HOLDFAST_SERVERS: ${leftOut.join(', ')}`)
  const other = had.filter((kind) => !servers[kind].version.startsWith(`${kind.split('-')[1]}.`))
  if (other.length > 0) box([`NOT TESTED on ${other.join(', ')}:`, 'that is not the version that could be had.'])
  if (failedStep === 'set-up') box([`NOT TESTED on ${asked.join(', ')}:`, 'the set-up failed.'])
  else for (const kind of asked) if (!servers[kind].ok) box([`NOT TESTED on ${kind}:`, ...wrap(servers[kind].reason)])

  const total = seconds(started)
  console.log(failedStep ? `FAILED at ${failedStep}, after ${total}` : `Every step passed, in ${total}`)
  // A step that is not the tests counts as one failure: nobody shall read "0 failed" below a failed run.
  const failed = tests.failed + (failedStep && failedStep !== 'tests' ? 1 : 0)
  console.log(`${tests.passed} passed, ${failed} failed${tests.skipped > 0 ? `, ${tests.skipped} skipped` : ''}`)
}

function box(lines) {
  const width = Math.max(...lines.map((line) => line.length)) + 2
  console.log(`\n┏${'━'.repeat(width)}┓`)
  for (const line of lines) console.log(`┃ ${line.padEnd(width - 2)} ┃`)
  console.log(`┗${'━'.repeat(width)}┛\n`)
}

function wrap(text) {
  return text.match(/.{1,96}(\s|$)|\S{1,96}/g)?.map((line) => line.trim()) ?? []
}

function seconds(since) {
  return `${((performance.now() - since) / 1000).toFixed(1)} s`
}
