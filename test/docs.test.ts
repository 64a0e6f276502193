import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { inspect, promisify } from 'node:util'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { createPool, type HoldfastError, type Pool } from '../src/index.js'
import { losing, startRelay } from '../src/testing/relay.js'
import { startServer, type TestServer } from '../src/testing/server.js'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const PAGES = ['README.md', ...readdirSync(join(ROOT, 'docs')).map((name) => `docs/${name}`)].filter(
  (page) => page.endsWith('.md') && existsSync(join(ROOT, page)),
)

// ---- what the pages hold

/** An example is a `js` or `ts` block. A `text` block right below it is what it prints. */
interface Example {
  readonly page: string
  readonly line: number
  readonly heading: string
  readonly language: 'js' | 'ts'
  readonly code: string
  readonly prints: string | undefined
}

const textOf = (page: string): string => readFileSync(join(ROOT, page), 'utf8')

function examplesOf(page: string): Example[] {
  const text = textOf(page)
  const blocks = [...text.matchAll(/^```(js|ts)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?/gms)]
  return blocks.map(({ 0: block, 1: language, 2: code, 3: prints, index }) => {
    expect(block, 'a block that was cut too early').not.toMatch(/^#+ /m)
    const before = text.slice(0, index)
    return {
      page,
      line: before.split('\n').length + 1,
      heading: headingsOf(before).at(-1) ?? '',
      language: language as 'js' | 'ts',
      code: code as string,
      prints,
    }
  })
}

/** Lines that begin with `#`, outside of code. */
function headingsOf(text: string): string[] {
  const prose = text.replace(/^```.*?^```$/gms, '')
  return [...prose.matchAll(/^#+ (.*)$/gm)].map(([, heading]) => heading as string)
}

/** As GitHub makes it. */
function anchorOf(heading: string): string {
  return heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N}_ -]/gu, '')
    .replaceAll(' ', '-')
}

// ---- where the examples run

type Holdfast = typeof import('../src/index.js')

/** What a block may use without making it. Its own `const db` goes before that. */
const GLOBALS = `
import type { Pool } from 'holdfast'
declare global {
  var db: Pool
  var createPool: typeof import('holdfast').createPool
}
`

const examples = PAGES.flatMap(examplesOf)
const workshop = mkdtempSync(join(tmpdir(), `holdfast-${process.pid}-docs-`))
// What lies below node_modules, Vitest leaves to Node as it is.
const folder = join(workshop, 'node_modules/examples')
let server: TestServer

const fileOf = ({ page, line }: Example, extension: string): string =>
  join(folder, `${page.replace(/\W+/g, '-')}-line-${line}.${extension}`)

/** The same code, with the test's own server in place of the one that the pages speak of. */
function here(code: string): string {
  return code
    .replaceAll('/tmp/', `${workshop}/`)
    .replaceAll('@db.example/', `@${server.host}:${server.port}/`)
    .replaceAll("host: 'db.example'", `host: '${server.host}', port: ${server.port}`)
    .replaceAll('/etc/ssl/db-ca.pem', join(workshop, 'ca.pem'))
    .replaceAll('/run/secrets/db', join(workshop, 'password'))
}

async function openWorkshop(): Promise<void> {
  server = await startServer('mariadb-10.11', { tls: true, flags: ['--max-allowed-packet=1M'] })
  await server.createAccount({ name: 'app', password: 'secret', database: 'shop' })
  await server.createAccount({ name: 'small', password: 'secret', database: 'shop', maxUserConnections: 3 })
  await server.query('USE shop')
  for (const statement of textOf('docs/shop.sql').split(/;\n/)) if (statement.trim()) await server.query(statement)

  mkdirSync(folder, { recursive: true })
  writeFileSync(join(workshop, 'ca.pem'), server.ca as string)
  writeFileSync(join(workshop, 'password'), 'secret\n')
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
  writeFileSync(join(folder, 'globals.d.ts'), GLOBALS)
  writeFileSync(join(folder, 'package.js'), "export * from 'holdfast'")
  // As an application has it: the package under its own name, as it was built, beside the drivers.
  symlinkSync(ROOT, join(workshop, 'node_modules/holdfast'))
  for (const name of ['mysql2', 'mariadb', '@types', 'undici-types']) {
    symlinkSync(join(ROOT, 'node_modules', name), join(workshop, 'node_modules', name))
  }
  for (const example of examples) writeFileSync(fileOf(example, example.language), here(example.code))
}

/** What a strict TypeScript project says to the `ts` blocks; it also makes JavaScript of them that this Node understands. */
async function compile(): Promise<string> {
  const options =
    '--strict --target es2022 --lib es2023,esnext.disposable --module nodenext --moduleDetection force --types node'
  const files = examples.filter(({ language }) => language === 'ts').map((example) => fileOf(example, 'ts'))
  const tsc = join(ROOT, 'node_modules/.bin/tsc')
  const { stdout } = await promisify(execFile)(tsc, [...options.split(' '), 'globals.d.ts', ...files], {
    cwd: folder,
  }).catch((error: { stdout: string }) => error)
  return stdout
}

// Times, places, and how far a stream came before it broke, differ from run to run.
const alike = (text: string): string =>
  text
    .replace(/\S+\.(js|ts):\d+:\d+/g, 'FILE')
    .replace(/\d+ (ms|s|rows)\b/g, '0 $1')
    .replace(/\s+/g, ' ')
    .trim()

/** Runs an example in this process, as a module of its own; resolves with what it printed. */
async function run(example: Example): Promise<string> {
  const printed: string[] = []
  const log = vi.spyOn(console, 'log').mockImplementation((...words) => void printed.push(format(words)))
  const { createPool } = (await import(pathToFileURL(join(folder, 'package.js')).href)) as Holdfast
  const db = createPool(here('mysql://app:secret@db.example/shop'))
  Object.assign(globalThis, { createPool, db })
  try {
    await import(pathToFileURL(fileOf(example, 'js')).href)
    await new Promise((resolve) => setImmediate(resolve))
  } finally {
    log.mockRestore()
    await db.drain({ timeoutMs: 1_000 })
  }
  return printed.join('\n')
}

/** For an example that changes the process for good: one of its own, which must end by itself, or by SIGTERM if it is made for that. */
async function runAlone(example: Example): Promise<string> {
  const child = spawn(process.execPath, [fileOf(example, 'js')], { env: { ...process.env, PORT: '0' } })
  let printed = ''
  child.stdout.on('data', (text) => {
    printed += text
    if (example.code.includes('SIGTERM')) child.kill('SIGTERM')
  })
  expect(await once(child, 'close')).toEqual([0, null])
  return printed
}

function format(words: unknown[]): string {
  return words.map((word) => (typeof word === 'string' ? word : inspect(word))).join(' ')
}

// ---- the tests

describe('the examples', () => {
  let complaints: string

  beforeAll(async () => {
    await openWorkshop()
    complaints = await compile()
  })

  afterEach(async () => {
    await server.untilNoSessions('small', 5_000) // who comes next may want all three
  })

  afterAll(async () => {
    await server?.[Symbol.asyncDispose]()
    rmSync(workshop, { recursive: true, force: true })
  })

  it('are there', () => {
    expect(PAGES).toEqual(expect.arrayContaining(['docs/errors.md', 'docs/options.md', 'docs/recipes.md']))
    expect(examples.length).toBeGreaterThan(40)
  })

  it('in TypeScript have the types that they seem to have', () => {
    expect(complaints).toBe('')
  })

  it.each(examples.map((example) => [`${example.page}:${example.line} (${example.heading})`, example] as const))(
    '%s',
    async (_, example) => {
      const printed = await (/SIGTERM|subscribe/.test(example.code) ? runAlone(example) : run(example))
      if (example.prints !== undefined) expect(alike(printed)).toBe(alike(example.prints))
    },
    15_000,
  )

  it('that cannot show a lost COMMIT quote its sentence to the letter', async () => {
    await using relay = await startRelay(server, { onRequest: losing('COMMIT', 'reset-after') })
    const db: Pool = createPool({
      host: relay.host,
      port: relay.port,
      user: 'app',
      password: 'secret',
      driver: 'mysql2',
    })
    const lost = db.transaction((tx) => tx.query('UPDATE shop.accounts SET balance = balance + 1'))
    const { code, message } = await lost.then(
      () => expect.unreachable(),
      (error: HoldfastError) => error,
    )
    expect(code).toBe('COMMIT_UNKNOWN')
    expect(alike(sectionOf('docs/errors.md', 'COMMIT_UNKNOWN'))).toContain(alike(message))
    await db.drain()
  })
})

describe('the pages', () => {
  it('have a section for each error code', () => {
    const [, type] = /type ErrorCode =(.*?)\n\n/s.exec(textOf('src/errors.ts')) as unknown as [string, string]
    const codes = [...type.matchAll(/'(\w+)'/g)].map(([, code]) => code)
    expect(codes).toContain('OPTION_INVALID')
    expect(headingsOf(textOf('docs/errors.md'))).toEqual(expect.arrayContaining(codes))
  })

  it('have a section for each option of a pool', () => {
    const options = knownOptions()
    expect(options).toContain('max')
    const sections = headingsOf(textOf('docs/options.md')).map((heading) => heading.replaceAll('`', ''))
    expect(sections).toEqual(expect.arrayContaining(options))
  })

  it.each([...PAGES, 'ARCHITECTURE.md', 'CHANGELOG.md'].filter((page) => existsSync(join(ROOT, page))))(
    '%s: every link inside the project leads somewhere',
    (page) => {
      const prose = textOf(page).replace(/^```.*?^```$/gms, '')
      const links = [...prose.matchAll(/\]\(([^)\s]+)\)/g)].map(([, link]) => link as string)
      const broken = links.filter((link) => !/^https?:/.test(link) && !leadsSomewhere(page, link))
      expect(broken).toEqual([])
    },
  )

  it('name only tests that exist', () => {
    const page = 'docs/guarantees.md'
    const rows = [...textOf(page).matchAll(/`((?:src|test)\/[\w./-]+\.test\.ts)`(?:: "([^"]+)")?/g)]
    expect(rows.length).toBeGreaterThan(9)
    const missing = rows.filter(([, file, name]) => {
      const path = join(ROOT, file as string)
      return !existsSync(path) || (name !== undefined && !readFileSync(path, 'utf8').includes(name))
    })
    expect(missing.map(([row]) => row)).toEqual([])
  })
})

/** The pool itself tells which options it knows. */
function knownOptions(): string[] {
  try {
    createPool({ 'an option that nobody knows': 1 } as object)
  } catch (error) {
    const [, list] = /known are (.*)$/.exec((error as Error).message) as unknown as [string, string]
    return list.split(', ')
  }
  throw new Error('it was taken')
}

function leadsSomewhere(page: string, link: string): boolean {
  const [path, anchor] = link.split('#') as [string, string?]
  const target = path === '' ? page : relative(ROOT, join(ROOT, dirname(page), path))
  if (!existsSync(join(ROOT, target))) return false
  return anchor === undefined || headingsOf(textOf(target)).map(anchorOf).includes(anchor)
}

function sectionOf(page: string, heading: string): string {
  const text = textOf(page)
  const start = text.indexOf(`\n## ${heading}\n`)
  return text.slice(start, text.indexOf('\n## ', start + 1))
}
