import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { installedDriver, type InstalledDriver } from '../../src/drivers/installed.js'
import { rehearse } from '../../src/drivers/mysql2-rehearsal.js'
import { Fault } from '../../src/faults/fault.js'
import { availableServers, startServer, type Account, type TestServer } from '../../src/testing/server.js'
import { connectWith, Watch } from './drivers.js'
import { pipe } from './piping.js'

const MYSQL2 = dirname(createRequire(import.meta.url).resolve('mysql2'))

/** Releases to come, perhaps: each works, and is not inside what the pipeline takes it to be. */
const SABOTAGES: Record<string, (source: string) => string> = {
  'adds its commands otherwise': (source) => source.replaceAll(/\baddCommand\b/g, 'enqueue'),
  'numbers its packets otherwise': (source) => source.replaceAll(/\bsequenceId\b/g, 'packetNumber'),
  'starts its commands otherwise': (source) =>
    source
      .replaceAll(/^ {2}start\(/gm, '  begin(')
      .replaceAll('this.next = this.start', 'this.next = this.begin')
      .replaceAll('executeCommand.start', 'executeCommand.begin'),
  'keeps its prepared statements otherwise': (source) =>
    source
      .replaceAll(/\b(this|options|executeCommand|_executeOptions)\.statement\b/g, '$1.handle')
      .replaceAll('statement: this', 'handle: this'),
  'writes a little later': (source) =>
    source.replace(
      'connection.writePacket(cmdPacket.toPacket(1));\n    return Query',
      'process.nextTick(() => connection.writePacket(cmdPacket.toPacket(1)));\n    return Query',
    ),
  'takes its commands in another order': (source) =>
    source.replaceAll('this._commands.shift()', 'this._commands.pop()'),
}

const places = mkdtempSync(join(tmpdir(), 'holdfast-sabotage-'))

afterAll(() => rmSync(places, { recursive: true }))

function sabotaged(name: string, sabotage: (source: string) => string): InstalledDriver {
  const modules = join(places, name, 'node_modules')
  const folder = join(modules, 'mysql2')
  mkdirSync(modules, { recursive: true })
  cpSync(MYSQL2, folder, { recursive: true })
  const { dependencies } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as { dependencies: object }
  for (const each of Object.keys(dependencies)) symlinkSync(join(dirname(MYSQL2), each), join(modules, each))
  let changes = 0
  for (const file of readdirSync(join(folder, 'lib'), { recursive: true, encoding: 'utf8' })) {
    if (!file.endsWith('.js')) continue
    const path = join(folder, 'lib', file)
    const source = readFileSync(path, 'utf8')
    const changed = sabotage(source)
    if (changed !== source) changes++
    writeFileSync(path, changed)
  }
  expect(changes).toBeGreaterThan(0)
  return installedDriver('mysql2', [pathToFileURL(join(places, name, 'package.json')).href])
}

describe('the rehearsal of mysql2', () => {
  test('goes well with the one that is installed, is quick, and leaves nothing open', async () => {
    const mysql2 = createRequire(import.meta.url)('mysql2') as Parameters<typeof rehearse>[0]
    const before = process.getActiveResourcesInfo().length
    const at = performance.now()
    const verdict = rehearse(mysql2)
    expect(await verdict).toBeUndefined()
    expect(performance.now() - at).toBeLessThan(500)
    expect(rehearse(mysql2)).toBe(verdict)
    await new Promise(setImmediate)
    expect(process.getActiveResourcesInfo().length).toBeLessThanOrEqual(before)
  })

  test('fails with one that throws, or never answers', async () => {
    const broken = {
      createConnection: () => {
        throw new Error('not today')
      },
    }
    expect(await rehearse(broken)).toBe('not today')
    const nothing = (): void => {}
    const silent = {
      createConnection: () => ({ on: nothing, connect: nothing, query: nothing, execute: nothing, destroy: nothing }),
    }
    expect(await rehearse(silent)).toBe('a handshake does not come')
  })
})

describe.each(availableServers().slice(0, 1))('on %s', (kind) => {
  let server: TestServer
  let account: Account

  beforeAll(async () => {
    server = await startServer(kind)
    account = await server.createAccount()
  })
  afterAll(() => server[Symbol.asyncDispose]())

  test.each(Object.entries(SABOTAGES))('a mysql2 that %s is not pipelined, and works', async (what, sabotage) => {
    const installed = sabotaged(what, sabotage)
    const s = await connectWith('mysql2', account.config, installed)
    const watch = new Watch()
    expect(s.pipelines).toBe(false)
    expect(s.unpipelined).toMatch(`mysql2 ${installed.version} is not as expected inside: `)
    for (const prepare of [false, true, true]) {
      expect((await s.query({ sql: 'SELECT ? AS x', values: ['a'], prepare })).rows).toEqual([{ x: 'a' }])
      await expect(s.query({ sql: 'SELECT * FROM missing', prepare })).rejects.toMatchObject({ kind: 'statement' })
    }
    expect(await pipe(s, 'SELECT 1')).toBeInstanceOf(Fault)
    const rows = s.stream({ sql: 'SELECT 1 AS a' })
    expect([(await rows.next()).value, (await rows.next()).done]).toEqual([{ a: 1 }, true])
    s.destroy()
    expect(await watch.stop()).toEqual([])
    await server.untilNoSessions(account.user)
  })
})
