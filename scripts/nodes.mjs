// `npm run test:nodes`: the package, packed and installed as a user would, and its contract on every Node that it promises.

import { spawnSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { runVitest } from './run-vitest.mjs'
import { cacheFolder, setup, wantedKinds } from './setup.mjs'

const NODES = ['20.19', '22', '24']
const SUITES = ['test/contract', 'src/pool', 'src/run', 'src/results']
const ROOT = dirname(dirname(fileURLToPath(import.meta.url)))
const { name, exports, devDependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
const entries = Object.keys(exports)
  .filter((entry) => !/\*|\.json$/.test(entry))
  .map((entry) => join(name, entry))

setup(wantedKinds())
run(join(ROOT, 'node_modules/.bin/tsc'), ['-p', 'tsconfig.build.json'])
const user = mkdtempSync(join(tmpdir(), `${name}-user-`))
try {
  installAsUser(user)
  const rows = NODES.map((range) => tryNode(range, user))
  console.table(Object.fromEntries(rows.map(({ node, ...columns }) => [node, columns])))
  process.exitCode = rows.every(
    (row) => row.import === 'ok' && row.require === 'ok' && row.failed === 0 && row.passed > 0,
  )
    ? 0
    : 1
} finally {
  rmSync(user, { recursive: true, force: true })
}

function installAsUser(folder) {
  run('npm', ['pack', '--pack-destination', folder])
  const tarball = readdirSync(folder).find((file) => file.endsWith('.tgz'))
  writeFileSync(join(folder, 'package.json'), '{ "private": true }')
  const drivers = ['mysql2', 'mariadb'].map((driver) => `${driver}@${devDependencies[driver]}`)
  run('npm', ['install', '--no-audit', '--no-fund', `./${tarball}`, ...drivers], folder)
}

function tryNode(range, folder) {
  const node = nodeBinary(range)
  const version = run(node, ['--version']).trim()
  console.log(`\n--- Node ${version}`)
  const attempt = (...args) => {
    const { status, stderr } = spawnSync(node, args, { cwd: folder, encoding: 'utf8' })
    if (status !== 0 || stderr !== '') console.log(stderr)
    return status === 0 ? 'ok' : 'FAILED'
  }
  const list = JSON.stringify(entries)
  const { passed, failed } = runVitest({ node, args: SUITES.filter((path) => existsSync(join(ROOT, path))) })
  return {
    node: version,
    import: attempt('--input-type=module', '--eval', `for (const entry of ${list}) await import(entry)`),
    require: attempt('--input-type=commonjs', '--eval', `for (const entry of ${list}) require(entry)`),
    passed,
    failed,
  }
}

/** The npm registry has every Node as a package. One that was fetched once is used from then on. */
function nodeBinary(range) {
  const home = join(cacheFolder(), 'nodes', range)
  const binary = join(home, 'bin/node')
  if (existsSync(binary)) return binary
  mkdirSync(dirname(home), { recursive: true })
  const draft = mkdtempSync(join(dirname(home), '.draft-'))
  try {
    const [{ filename }] = JSON.parse(
      run('npm', ['pack', '--json', `node-${process.platform}-${process.arch}@${range}`], draft),
    )
    run('tar', ['-xzf', filename], draft)
    renameSync(join(draft, 'package'), home)
  } finally {
    rmSync(draft, { recursive: true, force: true })
  }
  return binary
}

function run(program, args, cwd = ROOT) {
  const { status, error, stdout, stderr } = spawnSync(program, args, { cwd, encoding: 'utf8', maxBuffer: 2 ** 28 })
  if (error || status !== 0)
    throw new Error(`${program} ${args.join(' ')} failed: ${error?.message ?? `${stdout}${stderr}`}`)
  return stdout
}
