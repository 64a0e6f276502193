import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { losing, startRelay, type Relay, type RelayOptions } from './relay.js'

// The server greets, and answers what it hears with the same in capitals.
const heard: string[] = []
const onServer = new Set<Socket>()
const server = createServer((socket) => {
  onServer.add(socket)
  socket.on('close', () => onServer.delete(socket))
  socket.on('error', () => {})
  socket.on('data', (chunk) => {
    heard.push(String(chunk))
    socket.write(String(chunk).toUpperCase())
  })
  socket.write('hello ')
})
beforeAll(async () => {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
})
afterAll(() => server.close())

/** A relay that is audited at the end of its test: nothing is left open at either end. */
async function aRelay(options?: RelayOptions): Promise<Relay> {
  const relay = await startRelay({ host: '127.0.0.1', port: (server.address() as AddressInfo).port }, options)
  heard.length = 0
  onTestFinished(async () => {
    await relay[Symbol.asyncDispose]()
    await expect.poll(() => [relay.open, onServer.size]).toEqual([0, 0])
  })
  return relay
}

interface Client {
  readonly socket: Socket
  /** What came in so far, and how it ended, if it did: FIN, or an error code. */
  seen: string
  end: string | undefined
}

function dial(relay: Relay): Client {
  const client: Client = { socket: connect(relay.port, relay.host), seen: '', end: undefined }
  client.socket.on('data', (chunk) => (client.seen += String(chunk)))
  client.socket.on('end', () => (client.end ??= 'FIN'))
  client.socket.on('error', (error: NodeJS.ErrnoException) => (client.end ??= error.code))
  onTestFinished(() => void client.socket.destroy())
  return client
}

async function greeted(relay: Relay): Promise<Client> {
  const client = dial(relay)
  await expect.poll(() => client.seen).toBe('hello ')
  return client
}

const aMoment = (): Promise<void> => sleep(30)

test('passes everything on, both ways, and counts', async () => {
  const relay = await aRelay()
  const client = await greeted(relay)
  client.socket.write('select')
  await expect.poll(() => client.seen).toBe('hello SELECT')
  expect(relay).toMatchObject({ accepted: 1, open: 1, bytesUp: 6, bytesDown: 12, losses: 0 })
  client.socket.end()
  await expect.poll(() => client.end).toBe('FIN')
})

test('leads a url or a config through itself', async () => {
  const relay = await aRelay()
  expect(relay.url('mysql://a%20b:c@db.example/shop?x=1')).toBe(`mysql://a%20b:c@127.0.0.1:${relay.port}/shop?x=1`)
  expect(relay.config({ host: 'db.example', port: 3306, user: 'a' })).toEqual({
    host: '127.0.0.1',
    port: relay.port,
    user: 'a',
  })
})

test('delays both ways, what travels together', async () => {
  const relay = await aRelay()
  const client = await greeted(relay)
  relay.delayMs = 50
  const start = performance.now()
  for (const letter of 'abcdefghij') {
    client.socket.write(letter)
    await sleep(2)
  }
  await expect.poll(() => client.seen, { interval: 1 }).toBe('hello ABCDEFGHIJ')
  const took = performance.now() - start
  expect(took).toBeGreaterThan(99)
  expect(took).toBeLessThan(400) // one behind the other they would take a second
})

test('slows down to a rate', async () => {
  const relay = await aRelay()
  const client = await greeted(relay)
  relay.bytesPerSecond = 10_000
  const start = performance.now()
  client.socket.write('x'.repeat(1000))
  await expect.poll(() => client.seen.length, { interval: 1 }).toBe(1006)
  expect(performance.now() - start).toBeGreaterThan(75) // 100, less the head start of its first piece each way
})

test('a receiver that does not read is felt by the sender', async () => {
  const relay = await aRelay()
  const client = await greeted(relay)
  client.socket.pause()
  const [far] = onServer
  far?.write(Buffer.alloc(40 << 20)) // more than the kernel buffers
  await aMoment()
  const unsent = far?.writableLength
  await aMoment()
  expect(unsent).toBeGreaterThan(0)
  expect(far?.writableLength).toBe(unsent)
  client.socket.destroy()
})

test('a stall is silence for old and new connections, and resume gives everything back', async () => {
  const relay = await aRelay()
  const old = await greeted(relay)
  relay.stall()
  old.socket.write('one ')
  const fresh = dial(relay)
  await aMoment()
  old.socket.write('two')
  await aMoment()
  expect([old.seen, old.end, fresh.seen, fresh.end, heard]).toEqual(['hello ', undefined, '', undefined, []])
  relay.resume()
  await expect.poll(() => [old.seen, fresh.seen]).toEqual(['hello ONE TWO', 'hello '])
})

test('stalling the existing ones leaves new ones alone', async () => {
  const relay = await aRelay()
  const old = await greeted(relay)
  relay.stallExisting()
  old.socket.write('lost')
  await greeted(relay)
  expect([old.seen, old.end, heard]).toEqual(['hello ', undefined, []])
})

test('during a stall the server does not learn that the application has gone', async () => {
  const relay = await aRelay()
  const client = await greeted(relay)
  relay.stall()
  client.socket.destroy()
  await expect.poll(() => relay.open).toBe(0)
  await aMoment()
  expect(onServer.size).toBe(1)
  relay.resume()
  await expect.poll(() => onServer.size).toBe(0)
})

test('swallowed replies: the server hears, the application does not, until resume', async () => {
  const relay = await aRelay()
  const client = await greeted(relay)
  relay.swallowReplies()
  client.socket.write('insert')
  const fresh = dial(relay)
  await expect.poll(() => heard).toEqual(['insert'])
  await aMoment()
  expect([client.seen, client.end, fresh.seen]).toEqual(['hello ', undefined, ''])
  relay.resume()
  await expect.poll(() => [client.seen, fresh.seen]).toEqual(['hello INSERT', 'hello '])
})

test('connections are accepted without a greeting, or dropped, or refused', async () => {
  const relay = await aRelay()
  const old = await greeted(relay)
  relay.greetNever()
  const silent = dial(relay)
  await expect.poll(() => relay.accepted).toBe(2)
  relay.dropDials()
  const dropped = dial(relay)
  await expect.poll(() => dropped.end).toBe('FIN')
  await relay.refuse()
  const refused = dial(relay)
  await expect.poll(() => refused.end).toBe('ECONNREFUSED')
  expect([silent.seen, silent.end, onServer.size]).toEqual(['', undefined, 1])
  old.socket.write('still here')
  await expect.poll(() => old.seen).toBe('hello STILL HERE')
  relay.resume()
  await relay.accept()
  await greeted(relay)
  expect(relay.accepted).toBe(4)
})

test('reset is a RST and cut is a FIN, for all connections of now, at both ends', async () => {
  const relay = await aRelay()
  const [first, second] = [await greeted(relay), await greeted(relay)]
  relay.reset()
  await expect.poll(() => [first.end, second.end, onServer.size]).toEqual(['ECONNRESET', 'ECONNRESET', 0])
  const third = await greeted(relay)
  relay.cut()
  await expect.poll(() => [third.end, onServer.size]).toEqual(['FIN', 0])
})

describe('a request that is lost', () => {
  const ends = { reset: 'ECONNRESET', cut: 'FIN', stall: undefined }
  for (const how of ['reset', 'cut', 'stall'] as const) {
    test(`by ${how} before the server saw it`, async () => {
      const relay = await aRelay({ onRequest: losing('commit', `${how}-before`) })
      const client = await greeted(relay)
      client.socket.write('begin ')
      await expect.poll(() => client.seen).toBe('hello BEGIN ')
      client.socket.write('commit')
      await expect.poll(() => [client.end, relay.losses]).toEqual([ends[how], 1])
      await aMoment()
      expect([client.seen, heard]).toEqual(['hello BEGIN ', ['begin ']])
    })

    test(`by ${how} after the server answered it`, async () => {
      const relay = await aRelay({ onRequest: losing('commit', `${how}-after`) })
      const client = await greeted(relay)
      client.socket.write('begin ')
      await expect.poll(() => client.seen).toBe('hello BEGIN ')
      client.socket.write('commit')
      await expect.poll(() => [client.end, heard]).toEqual([ends[how], ['begin ', 'commit']])
      await aMoment()
      expect([client.seen, relay.losses]).toEqual(['hello BEGIN ', 1])
    })
  }

  test('can be lost once only, and can be told by the number of its connection', async () => {
    const relay = await aRelay({ onRequest: (_chunk, link) => (link.number === 2 ? 'reset-before' : undefined) })
    const [first, second] = [await greeted(relay), await greeted(relay)]
    first.socket.write('a')
    second.socket.write('b')
    await expect.poll(() => [first.seen, second.end]).toEqual(['hello A', 'ECONNRESET'])
    relay.onRequest = losing('a', 'cut-before')
    first.socket.write('a')
    await expect.poll(() => first.end).toBe('FIN')
    const third = await greeted(relay)
    third.socket.write('a')
    await expect.poll(() => third.seen).toBe('hello A')
  })
})

test('a server that is down resets the connection before the greeting', async () => {
  await using relay = await startRelay({ host: '127.0.0.1', port: 1 })
  const client = dial(relay)
  await expect.poll(() => client.end).toBe('ECONNRESET')
  expect(client.seen).toBe('')
})
