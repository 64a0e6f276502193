import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Session, Statement } from '../../src/driver.js'
import type { ConnectConfig } from '../../src/drivers/config.js'
import { installedDriver, type InstalledDriver } from '../../src/drivers/installed.js'
import { Fault } from '../../src/faults/fault.js'
import { startRelay } from '../../src/testing/relay.js'
import { availableServers, startServer, type Account, type TestServer } from '../../src/testing/server.js'
import { connectWith, Watch, type DriverName } from './drivers.js'
import { cases, pipe, shown, type Outcome } from './piping.js'

const MODULES = fileURLToPath(new URL('../../node_modules', import.meta.url))

/** The folders of `devDependencies`: the oldest that is supported, some between, and what applications get now. */
const RELEASES: readonly (readonly [DriverName, string])[] = [
  ['mysql2', 'mysql2-3.0'],
  ['mysql2', 'mysql2-3.9'],
  ['mysql2', 'mysql2-3.14'],
  ['mysql2', 'mysql2'],
  ['mariadb', 'mariadb-3.3'],
  ['mariadb', 'mariadb-3.4'],
  ['mariadb', 'mariadb'],
]

const places = mkdtempSync(join(tmpdir(), 'holdfast-releases-'))

/** Found like any other, from a folder in which it is the one that is installed. */
function installedAs(name: DriverName, folder: string): InstalledDriver {
  const modules = join(places, folder, 'node_modules')
  mkdirSync(modules, { recursive: true })
  symlinkSync(join(MODULES, folder), join(modules, name))
  return installedDriver(name, [pathToFileURL(join(dirname(modules), 'package.json')).href])
}

const installedReleases = RELEASES.map(([name, folder]) => installedAs(name, folder))

afterAll(() => rmSync(places, { recursive: true }))

describe.each(availableServers())('pipelining on %s', (kind) => {
  let server: TestServer

  beforeAll(async () => {
    server = await startServer(kind)
  })
  afterAll(() => server[Symbol.asyncDispose]())

  // mariadb 3.3.0 trips over the handshake of MariaDB 11.8, whatever is asked of it.
  const able = installedReleases.filter(({ version }) => !(kind === 'mariadb-11.8' && version === '3.3.0'))

  describe.each(able)('with $name $version', (installed) => {
    const { name } = installed
    let account: Account

    beforeAll(async () => {
      account = await server.createAccount()
    })

    async function withSession(config: Partial<ConnectConfig>, work: (s: Session) => Promise<void>): Promise<void> {
      const watch = new Watch()
      const s = await connectWith(name, { ...account.config, ...config }, installed)
      try {
        expect(s.unpipelined).toBeUndefined()
        await work(s)
      } finally {
        s.destroy()
      }
      const seen = await watch.stop()
      // mysql2 3.0 clears its cache in a way that was given up by then.
      expect(seen.filter((each) => (each as Error).name !== 'DeprecationWarning')).toEqual([])
      await server.untilNoSessions(account.user)
    }

    const numbers = (count: number): Statement[] =>
      Array.from({ length: count }, (_, n) => ({ sql: `SELECT ${n} AS n` }))
    const all = (s: Session, statements: readonly Statement[]): Promise<Outcome[]> =>
      Promise.all(statements.map((each) => pipe(s, each)))

    test('each statement gets its own answer', async () => {
      await withSession({}, async (s) => {
        for (let round = 1; round <= 5; round++) {
          const mixed = cases(name, 200, round)
          const outcomes = await all(
            s,
            mixed.map(({ statement }) => statement),
          )
          const wrong = outcomes.map((outcome, at) => mixed[at]?.wrong(outcome)).filter((each) => each !== undefined)
          expect(wrong.slice(0, 1)).toEqual([])
        }
        const piped = all(s, numbers(5))
        await s.reset()
        expect((await piped).map(shown)).toEqual(numbers(5).map((_, n) => [{ n }]))
        expect((await s.query({ sql: 'SELECT 1 AS one', prepare: true })).rows).toEqual([{ one: 1 }])
      })
    })

    test('more prepared statements than are kept are right', async () => {
      await withSession({}, async (s) => {
        const statements = Array.from({ length: 300 }, (_, n) => ({
          sql: `SELECT CONCAT(?, '-${n}') AS x`,
          values: [String(n)],
          prepare: true,
        }))
        for (let round = 0; round < 2; round++)
          expect((await all(s, statements)).map(shown)).toEqual(statements.map((_, n) => [{ x: `${n}-${n}` }]))
      })
    })

    test('what is sent in one turn is one write, and waits for no reply', async () => {
      await using relay = await startRelay(server, { delayMs: 10 })
      await withSession(relay.config(account.config), async (s) => {
        const prepared = { sql: 'SELECT ? AS x', values: ['a'], prepare: true }
        await pipe(s, prepared)
        let chunks = 0
        relay.onRequest = () => void chunks++
        const at = performance.now()
        const piped = all(s, [...numbers(60), prepared])
        expect((await s.query({ sql: 'SELECT 1 AS one' })).rows).toEqual([{ one: 1 }])
        expect(performance.now() - at).toBeLessThan(300)
        expect(chunks).toBe(1)
        expect((await piped).map(shown)).toEqual([...numbers(60).map((_, n) => [{ n }]), [{ x: 'a' }]])
      })
    })

    test('a session that is killed answers nothing more', async () => {
      await withSession({}, async (s) => {
        const piped = all(s, [
          { sql: 'SELECT SLEEP(0.3)' },
          ...numbers(20),
          { sql: 'SELECT 1', prepare: true },
          ...numbers(5),
        ])
        await server.kill(s.threadId)
        for (const outcome of await piped) expect(outcome).toMatchObject({ kind: 'lost', session: 'lost' })
      })
    })

    test('a statement that the driver cannot write, or trips over, gives nobody the rows of another', async () => {
      const circle: Record<string, unknown> = {}
      circle['self'] = circle
      const tripping = { sql: 'SELECT 1 AS trip UNION ALL SELECT 2' }
      const typeCast = (field: { name: string | (() => string) }, next: () => unknown): unknown => {
        if ((typeof field.name === 'function' ? field.name() : field.name) === 'trip') throw new Error('tripped')
        return next()
      }
      for (const odd of [tripping, { sql: 'SELECT ?', values: [circle], prepare: true }]) {
        await withSession(odd === tripping ? { driverOptions: { typeCast } } : {}, async (s) => {
          const outcomes = await all(s, [...numbers(5), odd, ...numbers(20)])
          const expected = [...numbers(5), odd, ...numbers(20)].map(({ sql }) => [{ n: Number(/\d+/.exec(sql)?.[0]) }])
          outcomes.forEach((outcome, at) => {
            if (outcome instanceof Fault) expect(outcome.kind).toMatch(/client|lost/)
            else expect(outcome.rows.map(({ n }: { n: bigint }) => ({ n: Number(n) }))).toEqual(expected[at])
          })
          expect(outcomes[5]).toMatchObject({ kind: 'client' })
          if (s.alive) expect((await s.query({ sql: 'SELECT 1 AS one' })).rows).toEqual([{ one: 1 }])
        })
      }
    })
  })
})
