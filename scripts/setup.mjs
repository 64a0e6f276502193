// Everything that the tests and the demo need: npm packages, database servers, and an initialised data directory for each.
// Runs on a fresh clone, so nothing but Node's own modules is imported here. What is there already is left alone.
//
//   node scripts/setup.mjs [kind...]
//
// Servers other than the installed MariaDB come out of Debian sid, unpacked into a cache folder and never installed.

import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { homedir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/**
 * @typedef {'mariadb-10.11' | 'mysql-9.7' | 'mariadb-11.8'} ServerKind
 * @typedef {{ ok: true, recipe: string, flavour: 'mariadb' | 'mysql', version: string, command: string[], flags: string[], template: string }} Server
 * @typedef {{ ok: false, reason: string }} NoServer
 * @typedef {Partial<Record<ServerKind, Server | NoServer>>} Servers
 */

/** @type {ServerKind[]} */
export const KINDS = ['mariadb-10.11', 'mysql-9.7', 'mariadb-11.8']

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)))
const DEBS = { 'mysql-9.7': 'mysql-server-core', 'mariadb-11.8': 'mariadb-server-core' }
const RECIPE = createHash('sha1')
  .update(readFileSync(fileURLToPath(import.meta.url)))
  .digest('hex') // a manifest of another recipe is stale
const isRoot = process.getuid?.() === 0

/** All of it. Throws when MariaDB 10.11 cannot be had; the others are reported as `{ ok: false, reason }`. */
export function setup(kinds = KINDS) {
  npmPackages()
  return servers(kinds)
}

/** The kinds that HOLDFAST_SERVERS (a comma list) narrows the tests to: all of them when it is not set. */
export function wantedKinds() {
  const wanted = process.env.HOLDFAST_SERVERS?.split(',').map((name) => name.trim())
  const unknown = wanted?.filter((name) => !KINDS.includes(name)) ?? []
  if (unknown.length > 0) throw new Error(`HOLDFAST_SERVERS names ${unknown.join(', ')}; known are ${KINDS.join(', ')}`)
  return wanted ? KINDS.filter((kind) => wanted.includes(kind)) : KINDS
}

export function cacheFolder() {
  return process.env.HOLDFAST_CACHE || join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'holdfast')
}

/** What is known of the servers, as the tests read it. @returns {Servers} */
function manifest() {
  const file = join(cacheFolder(), 'servers.json')
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : {}
}

/** Compares the lock with npm's own record of what it installed: times mean nothing after a checkout. */
function npmPackages() {
  const wanted = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')).packages
  const record = join(ROOT, 'node_modules/.package-lock.json')
  const installed = existsSync(record) ? JSON.parse(readFileSync(record, 'utf8')).packages : {}
  const isThere = ([path, entry]) => path === '' || entry.optional || installed[path]?.version === entry.version
  if (Object.entries(wanted).every(isThere)) return
  say('npm ci')
  run('npm', ['ci', '--no-audit', '--no-fund'], { cwd: ROOT, stdio: ['ignore', 2, 2] })
}

/** @param {ServerKind[]} kinds */
function servers(kinds = KINDS) {
  mkdirSync(cacheFolder(), { recursive: true })
  const isComplete = (kind) => {
    const server = manifest()[kind]
    if (
      !server?.ok ||
      server.recipe !== RECIPE ||
      !server.command.every(isPathOrOption) ||
      !existsSync(server.template)
    )
      return false
    return kind in DEBS || versionOf(server.command) === server.version
  }
  if (!kinds.every(isComplete)) {
    locked(() => {
      for (const kind of kinds) if (!isComplete(kind)) remember(kind, provide(kind))
    })
  }
  const known = manifest()
  /** @type {Servers} */
  const asked = Object.fromEntries(kinds.map((kind) => [kind, known[kind]]))
  return asked
}

/** @param {ServerKind} kind @returns {Server | NoServer} */
function provide(kind) {
  if (!(kind in DEBS)) return withTemplate(kind, installedMariadb())
  try {
    return withTemplate(kind, unpackedServer(kind, DEBS[kind]))
  } catch (error) {
    return { ok: false, reason: error.message }
  }
}

function remember(kind, server) {
  const file = join(cacheFolder(), 'servers.json')
  const draft = `${file}.${process.pid}`
  writeFileSync(draft, JSON.stringify({ ...manifest(), [kind]: server }, null, 2))
  renameSync(draft, file)
}

// --- the MariaDB of this machine ----------------------------------------------------------------------------------------

function installedMariadb() {
  let binary = find('mariadbd')
  if (!binary && isRoot && find('apt-get')) {
    say('installing mariadb-server-core and mariadb-client-core')
    run('apt-get', ['update'])
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
    run('apt-get', ['install', '-y', '--no-install-recommends', 'mariadb-server-core', 'mariadb-client-core'], { env })
    binary = find('mariadbd')
  }
  if (!binary) {
    throw new Error(
      'No MariaDB server here: install mariadb-server-core and mariadb-client-core (Debian, Ubuntu), or put `mariadbd` on the PATH.',
    )
  }
  return { flavour: 'mariadb', command: [binary], flags: [], basedir: dirname(dirname(realpathSync(binary))) }
}

function find(program) {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/usr/libexec']
  return folders.map((folder) => join(folder, program)).find(isExecutable)
}

function isExecutable(file) {
  try {
    accessSync(file, constants.X_OK)
    return true
  } catch {
    return false
  }
}

// --- servers out of Debian sid --------------------------------------------------------------------------------------------

function unpackedServer(kind, deb) {
  const home = join(cacheFolder(), 'servers', kind)
  if (!existsSync(home)) {
    mkdirSync(dirname(home), { recursive: true })
    withDraft(dirname(home), (draft) => {
      say(`fetching ${deb} from Debian sid`)
      const root = join(draft, 'root')
      for (const file of downloadWithDependencies(deb, join(draft, 'apt'))) run('dpkg', ['-x', file, root])
      prune(root)
      versionOf(commandIn(root).command) // it runs: only now may it be called by its name
      renameSync(root, home)
    })
  }
  const { command, lib } = commandIn(home)
  const basedir = join(home, 'usr')
  const flags = [
    `--basedir=${basedir}`,
    `--plugin-dir=${join(dirname(lib), 'mysql/plugin')}`,
    `--lc-messages-dir=${shareOf(basedir)}`,
    `--character-sets-dir=${join(shareOf(basedir), 'charsets')}`,
  ]
  return { flavour: deb.startsWith('mysql') ? 'mysql' : 'mariadb', command, flags, basedir }
}

/** Everything down to libc comes along, because apt is told that nothing is installed: the host's own libraries may be older. */
function downloadWithDependencies(deb, state) {
  if (!find('apt-get') || !find('dpkg')) throw new Error('apt-get and dpkg are needed to fetch it from Debian sid')
  for (const folder of ['lists/partial', 'archives/partial', 'none'])
    mkdirSync(join(state, folder), { recursive: true })
  writeFileSync(join(state, 'status'), '')
  const own = [
    `Dir::State=${state}`,
    `Dir::State::Lists=${join(state, 'lists')}`,
    `Dir::State::status=${join(state, 'status')}`,
    `Dir::Cache=${state}`,
    `Dir::Cache::archives=${join(state, 'archives')}`,
    'APT::Sandbox::User=root',
    'APT::Update::Post-Invoke-Success=',
    'Acquire::Languages=none',
    'Acquire::Retries=2',
    'Acquire::http::Timeout=30',
  ]
  const apt = (...args) => run('apt-get', [...own.flatMap((option) => ['-o', option]), ...args])

  const mirror = debianMirror((...args) => run('apt-get', args)) ?? (apt('update'), debianMirror(apt))
  if (!mirror) throw new Error('apt is not set up with a Debian mirror here')
  const keyring = ['gpg', 'pgp'].map((end) => `/usr/share/keyrings/debian-archive-keyring.${end}`).find(existsSync)
  if (!keyring) throw new Error('the package debian-archive-keyring is needed to verify what Debian sid sends')
  writeFileSync(join(state, 'sid.list'), `deb [signed-by=${keyring}] ${mirror} sid main\n`)
  own.push(`Dir::Etc::sourcelist=${join(state, 'sid.list')}`)
  for (const part of ['sourceparts', 'preferencesparts']) own.push(`Dir::Etc::${part}=${join(state, 'none')}`)
  own.push('Dir::Etc::preferences=/dev/null', 'APT::Update::Error-Mode=any')

  apt('update')
  apt('install', '-y', '--download-only', '--no-install-recommends', deb)
  const debs = readdirSync(join(state, 'archives')).filter((name) => name.endsWith('.deb'))
  return debs.map((name) => join(state, 'archives', name))
}

/** The mirror that this machine's apt is set up with. Its answer comes from the package lists, so it needs an update to have run. */
function debianMirror(apt) {
  const sites = apt('indextargets', '--format', '$(SITE)', 'Created-By: Packages', 'Origin: Debian').split('\n')
  return sites.find((site) => site !== '' && !site.includes('security'))
}

/** Keeps the server, its messages and the libraries. */
function prune(root) {
  const usr = join(root, 'usr')
  for (const name of readdirSync(usr)) if (!/^(lib.*|sbin|share)$/.test(name)) remove(join(usr, name))
  for (const name of readdirSync(join(usr, 'share')))
    if (!/^(mysql|mariadb)$/.test(name)) remove(join(usr, 'share', name))
  const { lib } = commandIn(root)
  for (const name of readdirSync(lib)) if (/^(gconv|perl.*)$/.test(name)) remove(join(lib, name))
}

/** The program behind its own loader, so that it runs on the libraries it came with. */
function commandIn(root) {
  const usr = join(root, 'usr')
  const lib = readdirSync(join(usr, 'lib'))
    .map((name) => join(usr, 'lib', name))
    .find((folder) => existsSync(join(folder, 'libc.so.6')))
  const loader = ['lib64', 'lib']
    .flatMap((name) => list(join(usr, name)))
    .find((file) => /\/ld-linux[^/]*\.so\.\d+$/.test(file))
  const binary = ['mariadbd', 'mysqld'].map((name) => join(usr, 'sbin', name)).find(existsSync)
  if (!lib || !loader || !binary)
    throw new Error('what Debian sid sent holds no server, no libc or no loader where they were expected')
  return { lib, command: [loader, '--library-path', lib, binary] }
}

// --- data directories -----------------------------------------------------------------------------------------------------

/** Small, and fast rather than safe: a data directory of a test lives for seconds. */
const FLAGS = {
  mariadb: [
    '--innodb-log-file-size=8M',
    '--innodb-buffer-pool-size=16M',
    '--innodb-flush-method=nosync',
    '--innodb-doublewrite=OFF',
    '--innodb-flush-log-at-trx-commit=0',
    '--loose-innodb-undo-tablespaces=0',
    '--aria-pagecache-buffer-size=1M',
    '--key-buffer-size=1M',
  ],
  mysql: [
    '--secure-file-priv=NULL', // Debian's build stops when its default folder is missing
    '--skip-log-bin',
    '--loose-mysqlx=OFF',
    '--innodb-redo-log-capacity=8M',
    '--innodb-buffer-pool-size=32M',
    '--innodb-flush-method=nosync',
    '--innodb-doublewrite=OFF',
    '--innodb-flush-log-at-trx-commit=0',
    '--innodb-data-file-path=ibdata1:8M:autoextend',
  ],
}

/** @returns {Server} */
function withTemplate(kind, { flavour, command, flags: own, basedir }) {
  const version = versionOf(command)
  const flags = ['--no-defaults', ...(isRoot ? ['--user=root'] : []), ...own, ...FLAGS[flavour]]
  const template = join(cacheFolder(), 'templates', `${kind}-${version}`)
  if (!existsSync(template)) {
    say(`initialising a data directory for ${kind} (${version})`)
    mkdirSync(dirname(template), { recursive: true })
    withDraft(dirname(template), (draft) => {
      const datadir = join(draft, 'data')
      const server = [...command, ...flags, `--datadir=${datadir}`]
      if (flavour === 'mysql') initialiseMysql(server, datadir)
      else initialiseMariadb(server, datadir, shareOf(basedir))
      run('cp', ['-a', '--sparse=always', datadir, join(draft, 'sparse')]) // most of it is zeros, and it is copied for every test
      renameSync(join(draft, 'sparse'), template)
    })
  }
  return { ok: true, recipe: RECIPE, flavour, version, command, flags, template }
}

function initialiseMysql([program, ...args], datadir) {
  run(program, [...args, '--initialize-insecure'])
  unlinkSync(join(datadir, 'auto.cnf')) // every copy shall get a server_uuid of its own
}

/** What mariadb-install-db does, without its help tables (half of the time) and without a socket-only root. */
function initialiseMariadb([program, ...args], datadir, share) {
  for (const schema of ['mysql', 'sys']) mkdirSync(join(datadir, schema), { recursive: true })
  const sql = (name) => {
    const file = [`mariadb_${name}.sql`, `mysql_${name}.sql`, `${name}.sql`]
      .map((end) => join(share, end))
      .find(existsSync)
    if (!file) throw new Error(`${name}.sql is missing in ${share}`)
    return readFileSync(file, 'latin1')
  }
  const scripts = [
    'system_tables',
    'performance_tables',
    'system_tables_data',
    'maria_add_gis_sp_bootstrap',
    'sys_schema',
  ]
  const input = ['USE mysql;', 'SET @auth_root_socket=NULL;', ...scripts.map(sql)].join('\n')
  const bootstrap = [
    '--bootstrap',
    '--silent-startup',
    '--log-warnings=0',
    '--enforce-storage-engine=',
    '--max-allowed-packet=8M',
    '--net-buffer-length=16K',
  ]
  run(program, [...args, ...bootstrap], { input: Buffer.from(input, 'latin1') })
}

function shareOf(basedir) {
  const share = ['share/mariadb', 'share/mysql', 'share']
    .map((name) => join(basedir, name))
    .find((folder) => existsSync(join(folder, 'charsets')))
  if (!share) throw new Error(`no charsets folder below ${basedir}/share`)
  return share
}

function versionOf([program, ...args]) {
  const text = run(program, [...args, '--no-defaults', '--version'])
  const version = /Ver (\d+\.\d+\.\d+)/.exec(text)?.[1]
  if (!version) throw new Error(`cannot read a version out of: ${text}`)
  return version
}

// --- small things ---------------------------------------------------------------------------------------------------------

/** Work in a draft folder beside the target: what bears its final name is complete, whoever was killed in between. */
function withDraft(parent, work) {
  const draft = mkdtempSync(join(parent, '.draft-'))
  try {
    work(draft)
  } finally {
    remove(draft)
  }
}

/** One process at a time fetches. The lock is a link that names its owner, so a dead owner's lock is recognised. */
function locked(work) {
  const lock = join(cacheFolder(), 'lock')
  for (let told = false; !tryLock(lock); told = true) {
    if (!told) say('waiting for another set-up to finish')
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200)
  }
  try {
    return work()
  } finally {
    unlinkSync(lock)
  }
}

function tryLock(lock) {
  try {
    symlinkSync(String(process.pid), lock)
    return true
  } catch (error) {
    if (error.code !== 'EEXIST') throw error
  }
  try {
    process.kill(Number(readlinkSync(lock)), 0)
  } catch (error) {
    // Should two see this at once, both may go on: every step below ends in a rename, so that costs time and nothing else.
    if (error.code === 'ESRCH') rmSync(lock, { force: true })
  }
  return false
}

function run(program, args, options = {}) {
  const { status, signal, error, stdout, stderr } = spawnSync(program, args, {
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
    ...options,
  })
  if (error) throw new Error(`${program}: ${error.message}`)
  if (status === 0) return stdout
  const end = (stderr?.trim() || stdout || '')
    .split('\n')
    .filter((line) => line.trim() !== '')
    .slice(-4)
    .join(' | ')
  const command = [program, ...args.filter((arg) => !/^-|=/.test(arg))].slice(0, 4).join(' ')
  throw new Error(`\`${command}\` failed (${signal ?? `exit code ${status}`})${end && `: ${end}`}`)
}

const remove = (path) => rmSync(path, { recursive: true, force: true })
const list = (folder) => (existsSync(folder) ? readdirSync(folder).map((name) => join(folder, name)) : [])
const isPathOrOption = (word) => word.startsWith('-') || existsSync(word)
const say = (text) => console.error(`set-up: ${text}`)

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  try {
    const kinds = process.argv.slice(2)
    for (const [kind, server] of Object.entries(setup(kinds.length > 0 ? kinds : wantedKinds()))) {
      console.log(`${kind}: ${server.ok ? server.version : `not available: ${server.reason}`}`)
    }
  } catch (error) {
    console.error(error.message)
    process.exitCode = 1
  }
}
