import { existsSync } from 'node:fs'
import { createConnection } from 'mysql2/promise'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { isAlive } from './offspring.js'
import { startScript } from './process.js'
import { availableServers, removeLeftovers, startServer, type TestServer } from './server.js'

describe.each(availableServers())('%s', (kind) => {
  let server: TestServer
  beforeAll(async () => {
    server = await startServer(kind)
  })
  afterAll(async () => {
    const { pid, socketPath } = server
    await server[Symbol.asyncDispose]()
    expect([isAlive(pid), existsSync(socketPath)]).toEqual([false, false])
  })

  test('is the server that it says it is', async () => {
    const [row] = await server.query<{ version: string }>('SELECT VERSION() AS version')
    expect(row?.version.startsWith(server.version)).toBe(true)
    expect(/mariadb/i.test(row?.version ?? '')).toBe(server.flavour === 'mariadb')
  })

  test('root may come over TCP as well', async () => {
    const connection = await createConnection({ host: server.host, port: server.port, user: 'root' })
    await connection.query('SELECT 1')
    await connection.end()
  })

  test('an account works on a database of its own, within its limits, and can be audited', async () => {
    const account = await server.createAccount({ maxUserConnections: 1 })
    const connection = await createConnection(account.url)
    await connection.query('CREATE TABLE t (id INT PRIMARY KEY)')
    // Polled, because the server sends its answer before it lies down.
    const session = { id: connection.threadId, user: account.user, db: account.database, command: 'Sleep' }
    await expect.poll(() => server.sessions(account.user)).toMatchObject([session])
    await expect(createConnection(account.config)).rejects.toMatchObject({ errno: 1226 })
    await expect(server.untilNoSessions(account.user, 20)).rejects.toThrow(
      `${account.user} still has sessions after 20 ms`,
    )
    await connection.end()
    await server.untilNoSessions(account.user)
  })

  test('two accounts may share a database, or a name of their choice', async () => {
    const first = await server.createAccount({ name: "o'neil", password: 'p@ss/w:rd' })
    const second = await server.createAccount({ database: first.database })
    for (const account of [first, second]) {
      const connection = await createConnection(account.url)
      await connection.query('CREATE TABLE IF NOT EXISTS shared (id INT)')
      await connection.end()
      await server.untilNoSessions(account.user)
    }
  })

  test('kills a session', async () => {
    const account = await server.createAccount()
    const connection = await createConnection(account.url)
    connection.on('error', () => {})
    await server.kill(connection.threadId)
    await expect(connection.query('SELECT 1')).rejects.toThrow()
    await server.untilNoSessions(account.user)
  })

  test('its variables can be set, and its own admin session outlives a short wait_timeout', async () => {
    await server.set('wait_timeout', 123)
    const connection = await createConnection({ ...(await server.createAccount()).config })
    expect(await connection.query('SELECT @@wait_timeout AS s')).toMatchObject([[{ s: 123 }], {}])
    await connection.end()
    expect(await server.query('SELECT @@wait_timeout AS s')).toEqual([{ s: 28800 }])
    await server.set('wait_timeout', 28800)
  })

  test('a frozen server answers nobody until it is thawed', async () => {
    await server.freeze()
    let answered = false
    const answer = server.query('SELECT 1').then(() => (answered = true))
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(answered).toBe(false)
    server.thaw()
    await answer
  })

  test('comes back after a crash and after a stop, with its data, on its port', async () => {
    const account = await server.createAccount()
    await server.query('CREATE TABLE ??.kept AS SELECT 7 AS seven', [account.database])
    const { pid, port } = server
    await server.restart('SIGKILL')
    expect(server.pid).not.toBe(pid)
    await server.stop('SIGTERM')
    await expect(createConnection(account.url)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    expect(() => server.pid).toThrow('is not running')
    await server.start()
    expect(server.port).toBe(port)
    const connection = await createConnection(account.url)
    expect(await connection.query('SELECT * FROM kept')).toMatchObject([[{ seven: 7 }], {}])
    await connection.end()
    await server.untilNoSessions(account.user)
  })

  test('a frozen server can be stopped', async () => {
    await server.freeze()
    await server.restart()
    await server.query('SELECT 1')
  })

  test('speaks TLS when asked to, and takes other options', async () => {
    await using other = await startServer(kind, { tls: true, flags: ['--wait-timeout=77'] })
    const account = await other.createAccount()
    const connection = await createConnection({ ...account.config, ssl: { ca: other.ca ?? '' } })
    expect(await connection.query("SHOW STATUS LIKE 'Ssl_version'")).toMatchObject([
      [{ Value: expect.stringContaining('TLS') }],
      {},
    ])
    expect(await connection.query('SELECT @@wait_timeout AS s')).toMatchObject([[{ s: 77 }], {}])
    await connection.end()
    await other.untilNoSessions(account.user)
  })

  test('a server that cannot start says why', async () => {
    await expect(startServer(kind, { flags: ['--no-such-option'] })).rejects.toThrow(
      /exited with code \d+ while starting:[^]*no-such-option/,
    )
  })
})

test('a server dies with its test process, however that dies, and what it left is removed', async () => {
  const [kind] = availableServers()
  const harness = new URL('../../dist/testing/server.js', import.meta.url)
  const owner = startScript(`
    const { startServer } = await import('${harness.href}')
    const server = await startServer('${kind}')
    process.send({ pid: server.pid, socket: server.socketPath })
    setInterval(() => {}, 1000)`)
  const { pid, socket } = await owner.next<{ pid: number; socket: string }>()
  expect([isAlive(pid), existsSync(socket)]).toEqual([true, true])
  await owner.kill('SIGKILL')
  removeLeftovers()
  expect(existsSync(socket)).toBe(false)
  await expect.poll(() => isAlive(pid)).toBe(false)
})
