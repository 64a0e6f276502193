import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { Session, Statement } from '../../src/driver.js'
import type { ConnectConfig } from '../../src/drivers/config.js'
import { Fault } from '../../src/faults/fault.js'
import { startRelay, type Relay } from '../../src/testing/relay.js'
import { type Account, type TestServer } from '../../src/testing/server.js'
import { connect, PAIRS, sharedServer, untilBusy, Watch } from './drivers.js'
import { cases, pipe, shown, type Outcome } from './piping.js'

/** What both drivers must do with statements that are sent before those ahead of them are answered, on every server. */
describe.each(PAIRS)('$name pipelining on $kind', ({ kind, name }) => {
  let server: TestServer
  let account: Account
  let watch: Watch
  const open: Session[] = []

  beforeAll(async () => {
    server = await sharedServer(kind, { tls: true })
    account = await server.createAccount()
    await server.query(`CREATE TABLE ${account.database}.t (id INT PRIMARY KEY, j JSON)`)
  })
  beforeEach(() => {
    watch = new Watch()
  })
  afterEach(async () => {
    for (const session of open.splice(0)) session.destroy()
    expect(await watch.stop()).toEqual([])
    await server.untilNoSessions(account.user)
  })

  async function session(config: Partial<ConnectConfig> = {}): Promise<Session> {
    const opened = await connect(name, { ...account.config, ...config })
    open.push(opened)
    return opened
  }

  /** One whose server takes packets of so many bytes. */
  async function sessionTaking(bytes: number): Promise<Session> {
    const [before] = await server.query<{ n: number }>('SELECT @@GLOBAL.max_allowed_packet AS n')
    await server.set('max_allowed_packet', bytes)
    const s = await session()
    await server.set('max_allowed_packet', before?.n ?? 1 << 24)
    s.traits = { maxAllowedPacket: bytes }
    return s
  }

  const numbers = (count: number): Statement[] => Array.from({ length: count }, (_, n) => ({ sql: `SELECT ${n} AS n` }))
  const rowsOf = (count: number): unknown[] => Array.from({ length: count }, (_, n) => [{ n }])
  const all = (s: Session, statements: readonly Statement[]): Promise<Outcome[]> =>
    Promise.all(statements.map((each) => pipe(s, each)))
  const faultOf = (work: Promise<unknown>): Promise<Fault> =>
    work.then(
      () => expect.fail('it did not fail'),
      (fault: unknown) => fault as Fault,
    )

  describe('answers', () => {
    test('are each statement’s own, whatever the kinds and sizes', async () => {
      const s = await session()
      for (let round = 1; round <= 12; round++) {
        const mixed = cases(name, 250, round)
        const outcomes = await all(
          s,
          mixed.map(({ statement }) => statement),
        )
        const wrong = outcomes
          .map((outcome, index) => mixed[index]?.wrong(outcome))
          .filter((each) => each !== undefined)
        expect(wrong.slice(0, 1)).toEqual([])
      }
      expect(s.alive).toBe(true)
      expect((await s.query({ sql: 'SELECT 1 AS one' })).rows).toEqual([{ one: 1 }])
    })

    test('are each statement’s own when more are sent with each answer, over TLS and through a unix socket too', async () => {
      for (const way of [{}, { host: 'localhost', ssl: { ca: server.ca } }, { socketPath: server.socketPath }]) {
        const s = await session(way)
        const left = cases(name, 600, 77)
        const worker = async (): Promise<unknown> => {
          for (let next = left.pop(); next; next = left.pop()) {
            const wrong = next.wrong(await pipe(s, next.statement))
            if (wrong !== undefined) return wrong
          }
          return undefined
        }
        expect(new Set(await Promise.all(Array.from({ length: 40 }, worker)))).toEqual(new Set([undefined]))
      }
    })

    test('of more prepared statements than the driver keeps are right', async () => {
      const s = await session()
      const statements = Array.from({ length: 300 }, (_, n) => ({
        sql: `SELECT CONCAT(?, '-${n}') AS x`,
        values: [String(n)],
        prepare: true,
      }))
      for (let round = 0; round < 3; round++) {
        expect((await all(s, statements)).map(shown)).toEqual(statements.map((_, n) => [{ x: `${n}-${n}` }]))
      }
      const [row] = await server.query<{ Value: string }>("SHOW GLOBAL STATUS LIKE 'Prepared_stmt_count'")
      expect(Number(row?.Value)).toBeLessThanOrEqual(256)
    })

    test('of prepared statements are never another’s when the server takes no more of them', async () => {
      const s = await session()
      const [held] = await server.query<{ n: number }>('SELECT @@GLOBAL.max_prepared_stmt_count AS n')
      const [count] = await server.query<{ Value: string }>("SHOW GLOBAL STATUS LIKE 'Prepared_stmt_count'")
      await server.set('max_prepared_stmt_count', Number(count?.Value) + 3)
      try {
        const statements = Array.from({ length: 20 }, (_, n) => ({
          sql: `SELECT CONCAT(?, '-${n % 8}') AS x`,
          values: [String(n)],
          prepare: true,
        }))
        const outcomes = await all(s, [...statements, ...numbers(5)])
        outcomes.slice(0, 20).forEach((outcome, n) => {
          if (outcome instanceof Fault)
            expect(outcome).toMatchObject({ kind: 'quota', session: 'usable', effect: 'none' })
          else expect(outcome.rows).toEqual([{ x: `${n}-${n % 8}` }])
        })
        expect(outcomes.filter((each) => each instanceof Fault).length).toBeGreaterThan(5)
        expect(outcomes.slice(20).map(shown)).toEqual(rowsOf(5))
      } finally {
        await server.set('max_prepared_stmt_count', held?.n ?? 16_382)
      }
    })

    test('of refused statements say why, and leave the session usable', async () => {
      const s = await session()
      expect(shown(await pipe(s, 'SET SESSION TRANSACTION READ ONLY'))).toEqual([])
      const slow = pipe(s, 'SELECT SLEEP(5)')
      const behind = all(s, [{ sql: 'INSERT INTO t (id) VALUES (1)' }, { sql: 'SELEC 1' }, { sql: 'SELECT 1 AS one' }])
      await untilBusy(server, s.threadId)
      await server.query('KILL QUERY ?', [s.threadId])
      const outcome = await slow
      if (outcome instanceof Fault) expect(shown(outcome)).toMatchObject({ kind: 'interrupted', session: 'usable' })
      else expect(outcome.rows).toEqual([{ 'SLEEP(5)': 1 }])
      expect((await behind).map(shown)).toEqual([
        { kind: 'read-only', session: 'usable', effect: 'none', errno: 1792 },
        { kind: 'statement', session: 'usable', effect: 'none', errno: 1064 },
        [{ one: 1 }],
      ])
    })
  })

  describe('what is sent', () => {
    test('in one turn is one write, with the statement behind it', async () => {
      await using relay = await startRelay(server)
      const s = await session(relay.config(account.config))
      await all(s, [{ sql: 'SELECT ? AS x', values: ['a'], prepare: true }])
      let chunks = 0
      relay.onRequest = () => void chunks++
      const piped = all(s, [...numbers(60), { sql: 'SELECT ? AS x', values: ['b'], prepare: true }])
      const last = s.query({ sql: 'SELECT 1 AS one' })
      expect((await piped).map(shown)).toEqual([...rowsOf(60), [{ x: 'b' }]])
      expect((await last).rows).toEqual([{ one: 1 }])
      expect(chunks).toBe(1)
    })

    test('does not wait for the replies to what was sent before', async () => {
      await using relay = await startRelay(server, { delayMs: 10 })
      const s = await session(relay.config(account.config))
      for (const prepare of [false, true]) {
        await pipe(s, { sql: 'SELECT 1 AS n', prepare })
        const at = performance.now()
        const outcomes = await all(
          s,
          Array.from({ length: 100 }, () => ({ sql: 'SELECT 1 AS n', prepare })),
        )
        expect(performance.now() - at).toBeLessThan(20 * 3)
        expect(outcomes.map(shown)).toEqual(outcomes.map(() => [{ n: 1 }]))
      }
    })

    test('is sent in order, though a statement ahead has to be prepared first', async () => {
      const s = await session()
      const outcomes = await all(s, [
        { sql: 'SET @a = 1' },
        { sql: 'SELECT @a AS a', prepare: true },
        { sql: 'SET @a = 2' },
        { sql: 'SELECT @a + 0 AS a', prepare: true },
        { sql: 'SELECT @a AS a' },
      ])
      expect(outcomes.map((each) => Number((shown(each) as { a: unknown }[])[0]?.a ?? 0))).toEqual([0, 1, 0, 2, 2])
      const early = pipe(s, { sql: 'SELECT @a * 1 AS a', prepare: true })
      const set = pipe(s, 'SET @a = 3')
      expect((await s.query({ sql: 'SELECT @a AS a' })).rows.map((row: { a: unknown }) => Number(row.a))).toEqual([3])
      expect(
        [shown(await early), shown(await set)].map((each) => Number((each as { a: unknown }[])[0]?.a ?? 0)),
      ).toEqual([2, 0])
    })
  })

  describe('a statement behind piped ones', () => {
    test('of any kind gets its own answer', async () => {
      const s = await session()
      for (let round = 0; round < 30; round++) {
        const piped = all(s, [...numbers(20), { sql: `SELECT * FROM missing${round}`, prepare: true }])
        if (round % 5 === 0)
          expect((await s.query({ sql: `SELECT ${round} AS r`, prepare: true })).rows).toEqual([{ r: round }])
        else if (round % 5 === 1) await s.ping()
        else if (round % 5 === 2) await s.reset()
        else if (round % 5 === 3) {
          const rows = s.stream({ sql: 'SELECT 1 AS a UNION SELECT 2' })
          expect(
            [await rows.next(), await rows.next(), await rows.next()].map((each) => each.value as unknown),
          ).toEqual([{ a: 1 }, { a: 2 }, undefined])
        } else
          expect(await faultOf(s.query({ sql: 'SELEC 1' }))).toMatchObject({
            kind: 'statement',
            session: 'usable',
            effect: 'none',
          })
        const outcomes = (await piped).map(shown)
        expect(outcomes.slice(0, 20)).toEqual(rowsOf(20))
        expect(outcomes[20]).toMatchObject({ kind: 'statement', errno: 1146 })
      }
    })

    test('that the driver refuses harms none, and is known not to have been sent', async () => {
      const s = await session()
      const refused =
        name === 'mysql2' ? { sql: 'DO ?', values: [undefined], prepare: true } : { sql: 'DO ?', values: [] }
      const piped = all(s, numbers(20))
      expect(await faultOf(s.query(refused))).toMatchObject({ kind: 'client', session: 'usable', effect: 'none' })
      const more = all(s, numbers(20))
      expect((await Promise.all([piped, more])).map((each) => each.map(shown))).toEqual([rowsOf(20), rowsOf(20)])
    })

    test('is alone: no other of its kind, and nothing piped behind it', async () => {
      const s = await session()
      const piped = all(s, numbers(3))
      const query = s.query({ sql: 'SELECT 1 AS one' })
      const expected = { kind: 'client', session: 'usable', effect: 'none' }
      expect(await faultOf(s.query({ sql: 'SELECT 2' }))).toMatchObject(expected)
      expect(await pipe(s, 'SELECT 3')).toMatchObject(expected)
      expect((await query).rows).toEqual([{ one: 1 }])
      expect((await piped).map(shown)).toEqual(rowsOf(3))
    })

    test.each([0, 100])('that is larger than the server takes has had no effect (behind %i)', async (count) => {
      for (const megabytes of [1.5, 3]) {
        const s = await sessionTaking(1 << 20)
        const piped = all(s, [{ sql: 'SET @a = 1' }, ...numbers(count)])
        const fault = await faultOf(s.query({ sql: 'DO ?', values: ['x'.repeat(megabytes * 1e6)] }))
        expect(fault).toMatchObject({ kind: 'packet-too-large', effect: 'none' })
        for (const outcome of await piped) if (outcome instanceof Fault) expect(outcome.session).toBe('lost')
      }
    })

    test('that is not too large, though with those before it it would be, may have had an effect', async () => {
      const s = await sessionTaking(1 << 20)
      const piped = all(s, numbers(1000))
      const last = faultOf(s.query({ sql: 'SELECT SLEEP(5), ?', values: ['x'.repeat(1_048_400)] }))
      await piped
      await untilBusy(server, s.threadId)
      await server.kill(s.threadId)
      expect(await last).toMatchObject({ kind: 'lost', session: 'lost', effect: 'unknown' })
    })

    test('that takes several packets gets its own answer', async () => {
      const s = await sessionTaking(64 << 20)
      const piped = all(s, [...numbers(3), { sql: `SELECT LENGTH('${'x'.repeat(17_000_000)}') AS n` }, ...numbers(3)])
      const last = { sql: `SELECT LENGTH('${'x'.repeat(17_000_001)}') AS n` }
      expect((await s.query(last)).rows).toEqual([{ n: 17_000_001 }])
      expect((await piped).map(shown)).toEqual([...rowsOf(3), [{ n: 17_000_000 }], ...rowsOf(3)])
    })
  })
  describe('the end of the session', () => {
    const sleeping = { sql: 'SELECT SLEEP(0.5)' }
    const ends: Record<string, (s: Session, relay: Relay) => unknown> = {
      'a KILL': (s) => server.kill(s.threadId),
      'a reset of the network': (_, relay) => relay.reset(),
      'a cut of the network': (_, relay) => relay.cut(),
      'a destroy': (s) => s.destroy(),
    }

    test.each(Object.keys(ends))('by %s rejects all that is under way, and answers nothing later', async (how) => {
      await using relay = await startRelay(server)
      for (const withLast of [false, true]) {
        const s = await session(relay.config(account.config))
        const answered = await all(s, numbers(3))
        const settled: Outcome[] = []
        const piped = [sleeping, ...numbers(30), { sql: 'SELECT 1 AS x', prepare: true }, ...numbers(3)].map((each) =>
          pipe(s, each).then((outcome) => (settled.push(outcome), outcome)),
        )
        const last = withLast ? faultOf(s.query({ sql: 'SELECT 1' })) : undefined
        await untilBusy(server, s.threadId)
        expect(settled).toEqual([])
        await ends[how]?.(s, relay)
        const outcomes = await Promise.all(piped)
        expect(outcomes).toMatchObject(outcomes.map(() => ({ kind: 'lost', session: 'lost' })))
        // What waited for the one that had to be prepared was not sent.
        expect(outcomes.slice(-4).map((each) => (each as Fault).effect)).toEqual(['none', 'none', 'none', 'none'])
        if (last) expect(await last).toMatchObject({ kind: 'lost', session: 'lost', effect: 'none' })
        expect(s.alive).toBe(false)
        expect(answered.map(shown)).toEqual(rowsOf(3))
        expect(await pipe(s, 'SELECT 1')).toMatchObject({ kind: 'lost', session: 'lost', effect: 'none' })
      }
    })

    test('in the middle of the answers gives each an answer of its own or none', async () => {
      await using relay = await startRelay(server, { delayMs: 1 })
      for (let round = 0; round < 15; round++) {
        const s = await session(relay.config(account.config))
        const mixed = cases(name, 60, 100 + round)
        const piped = all(
          s,
          mixed.map(({ statement }) => statement),
        )
        await sleep(round)
        if (round % 3 === 0) s.destroy()
        else if (round % 3 === 1) relay.reset()
        else await server.kill(s.threadId)
        const outcomes = await piped
        const lost = outcomes.findIndex((each) => each instanceof Fault && each.session === 'lost')
        expect(outcomes.slice(0, lost < 0 ? 60 : lost).map((each, index) => mixed[index]?.wrong(each))).toEqual(
          Array.from({ length: lost < 0 ? 60 : lost }, () => undefined),
        )
      }
    })

    test('by a destroy, as soon as the first answer came, gives no other statement’s fault to anyone', async () => {
      const s = await session()
      const outcomes: Outcome[] = []
      const first = pipe(s, 'SELECT 1')
      const others = all(s, [
        { sql: 'SELEC 1' },
        ...numbers(30),
        { sql: 'SELECT nowhere', prepare: true },
        ...numbers(3),
      ])
      void first.then(() => s.destroy())
      outcomes.push(...(await others))
      expect(shown(outcomes[0] as Outcome)).toMatchObject({ kind: expect.stringMatching(/statement|lost/) as string })
      for (const each of outcomes.slice(1)) if (each instanceof Fault) expect(each.kind).toMatch(/lost/)
      expect(outcomes.at(-1)).toMatchObject({ kind: 'lost', session: 'lost' })
    })

    test('that the server announced before the statements came is seen, and they are lost', async () => {
      const ways = [{}, { host: 'localhost', ssl: { ca: server.ca } }, { socketPath: server.socketPath }]
      const sessions = await Promise.all(ways.map((way) => session(way)))
      for (const s of sessions) await s.query({ sql: 'SET SESSION wait_timeout = 1' })
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1300)
      const statements = [...numbers(5), { sql: 'SELECT 1', prepare: true }, ...numbers(5)]
      const outcomes = await Promise.all(sessions.map((s) => all(s, statements)))
      // Where a second write fails before the announcement was read, it is not read.
      const kind = expect.stringMatching(server.flavour === 'mysql' ? /^(idle-closed|lost)$/ : /^lost$/) as string
      expect(outcomes).toMatchObject(ways.map(() => statements.map(() => ({ kind, session: 'lost' }))))
      expect(sessions.map((s) => s.alive)).toEqual([false, false, false])
    })
  })

  describe('a reply that the driver trips over', () => {
    test('gives nobody the rows of another', async () => {
      const s = await session()
      if (name === 'mariadb' && server.flavour === 'mysql') return // it lets no JSON in that is none
      if (name === 'mariadb') {
        await s.query({ sql: 'SET SESSION check_constraint_checks = 0' })
        await s.query({ sql: 'CREATE TEMPORARY TABLE odd (n INT, j JSON)' })
        for (let n = 0; n < 50; n++)
          await s.query({ sql: 'INSERT INTO odd VALUES (?, ?)', values: [n, n === 1 ? '{' : '{}'] })
      }
      const tripping =
        name === 'mariadb'
          ? { sql: 'SELECT n, j, REPEAT(1, 1000) AS pad FROM odd ORDER BY n' }
          : { sql: 'SELECT 666 AS trip UNION ALL SELECT 1 UNION ALL SELECT 2' }
      const t = name === 'mariadb' ? s : await session({ driverOptions: { typeCast: trip } })
      const settled: unknown[] = []
      const watched = [...numbers(5), tripping, ...numbers(40)].map((each, index) =>
        pipe(t, each).then((outcome) => (settled.push(index), outcome)),
      )
      const last = faultOf(t.query({ sql: 'SELECT 7 AS seven' }))
      const outcomes = await Promise.all(watched)
      outcomes.forEach((outcome, index) => {
        if (outcome instanceof Fault) expect(outcome).toMatchObject({ session: 'lost', effect: 'unknown' })
        else expect(outcome.rows).toEqual([{ n: index }])
        if (index >= 5) expect(outcome).toBeInstanceOf(Fault)
        if (index > 5) expect(outcome).toMatchObject({ kind: 'lost' })
      })
      expect(await last).toMatchObject({ kind: 'lost', session: 'lost', effect: 'unknown' })
      expect(t.alive).toBe(false)
      await sleep(20)
      expect(new Set(settled).size).toBe(settled.length)
    })

    const trip = (field: { name: string }, next: () => unknown): unknown => {
      const value = next()
      if (field.name === 'trip') throw new Error('tripped')
      return value
    }
  })

  test('is known not to be there where it is not', async () => {
    const compressed = await session({ driverOptions: { compress: true } })
    expect(compressed).toMatchObject({ pipelines: false, unpipelined: 'compression' })
    expect(await pipe(compressed, 'SELECT 1')).toMatchObject({ kind: 'client', session: 'usable', effect: 'none' })
    expect((await compressed.query({ sql: 'SELECT 1 AS one' })).rows).toEqual([{ one: 1 }])
    const plain = await session()
    expect(plain.pipelines).toBe(true)
    expect(plain.unpipelined).toBeUndefined()
    if (name === 'mysql2') return
    for (const option of [{ pipelining: false }, { permitLocalInfile: true }]) {
      const s = await session({ driverOptions: option })
      expect(s).toMatchObject({ pipelines: false, unpipelined: `driverOptions.${Object.keys(option)[0]}` })
      expect((await s.query({ sql: 'SELECT 1 AS one' })).rows).toEqual([{ one: 1 }])
    }
  })
})
