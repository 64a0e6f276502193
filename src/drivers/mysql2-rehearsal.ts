import { setImmediate as turn } from 'node:timers/promises'
import { Duplex } from 'node:stream'
import { pipelineCommands } from './mysql2-pipeline.js'

/** What the rehearsal calls of mysql2. */
export interface Rehearsed {
  createConnection(options: Record<string, unknown>): Connection
}

interface Connection {
  on(event: 'error', listener: (error: unknown) => void): void
  connect(done: (error?: unknown) => void): void
  query(sql: string, values: unknown, done: Callback): void
  execute(sql: string, values: unknown, done: Callback): void
  destroy(): void
}

type Callback = (error: unknown, rows?: unknown) => void

/** So many turns of the loop a step may take: nothing in it waits for anything. */
const TURNS = 10

const verdicts = new WeakMap<Rehearsed, Promise<string | undefined>>()

/**
 * Tries on a server that is a script, in memory, whether commands can be written before those ahead of them are answered, and
 * whether each gets its own answer then. Undefined when all went as it must, or what did not; once for each module.
 */
export function rehearse(mysql2: Rehearsed): Promise<string | undefined> {
  const verdict =
    verdicts.get(mysql2) ??
    play(mysql2).then(
      () => undefined,
      (error: unknown) => (error instanceof Error ? error.message : String(error)),
    )
  verdicts.set(mysql2, verdict)
  return verdict
}

async function play(mysql2: Rehearsed): Promise<void> {
  const stage = new Stage()
  const connection = mysql2.createConnection({ stream: () => stage, user: 'holdfast', connectTimeout: 0 })
  try {
    connection.on('error', (error) => stage.emit('error', error))
    let isConnected = false
    connection.connect((error) => (isConnected = !error))
    await stage.until(() => isConnected, 'a handshake')
    await act(connection, stage)
    if (stage.failure) throw stage.failure
  } finally {
    stage.failure = undefined
    connection.destroy()
    stage.destroy()
  }
}

async function act(connection: Connection, stage: Stage): Promise<void> {
  let late = 0
  pipelineCommands(connection, () => {
    late++
    return () => late--
  })
  const heard = new Map<string, unknown[]>()
  const listen =
    (name: string): Callback =>
    (error, rows) =>
      void heard.set(name, [
        ...(heard.get(name) ?? []),
        error ? ((error as { errno?: number }).errno ?? 'refused') : rows,
      ])
  const expect = async (
    written: number,
    replies: readonly Buffer[],
    answers: Record<string, unknown>,
  ): Promise<void> => {
    if (stage.written !== written) throw new Error(`${stage.written} packets were written ahead, not ${written}`)
    stage.written = 0
    stage.push(Buffer.concat(replies))
    const names = Object.keys(answers)
    await stage.until(() => names.every((name) => heard.has(name)), 'an answer')
    for (const name of names) {
      if (JSON.stringify(heard.get(name)) !== JSON.stringify([answers[name]]))
        throw new Error(`a statement got ${JSON.stringify(heard.get(name))} for an answer`)
    }
    heard.clear()
  }

  connection.query('holdfast rehearses 1', [], listen('first'))
  connection.query('holdfast rehearses 2', [], listen('refused'))
  connection.query('holdfast rehearses 3', [], listen('last'))
  await expect(3, [textRows(1), error(1064), textRows(3)], { first: [{ n: 1 }], refused: 1064, last: [{ n: 3 }] })

  connection.execute('holdfast rehearses ?', [4], listen('prepared'))
  if (late !== 1) throw new Error('an execute does not wait for its prepare')
  await expect(1, [prepared()], {})
  await stage.until(() => late === 0, 'an execute')
  await expect(1, [binaryRows(4)], { prepared: [{ n: 4 }] })

  const circle: unknown[] = []
  circle.push({ circle })
  connection.query('holdfast rehearses 5', [], listen('first'))
  connection.execute('holdfast rehearses ?', circle, listen('unbound'))
  connection.execute('holdfast rehearses ?', [6], listen('prepared'))
  connection.query('holdfast rehearses 7', [], listen('last'))
  await expect(3, [textRows(5), binaryRows(6), textRows(7)], {
    first: [{ n: 5 }],
    unbound: 'refused',
    prepared: [{ n: 6 }],
    last: [{ n: 7 }],
  })
}

/** The server: greets, lets anybody in, and then says what it is told to. */
class Stage extends Duplex {
  /** Packets, since the last replies. */
  written = 0
  failure: Error | undefined
  #isLetIn = false

  constructor() {
    super({ emitClose: true })
    this.push(greeting())
  }

  override _read(): void {}

  override _write(_chunk: Buffer, _encoding: string, done: () => void): void {
    if (this.#isLetIn) this.written++
    else setImmediate(() => this.push(packet(2, Buffer.from([0, 0, 0, 2, 0, 0, 0]))))
    this.#isLetIn = true
    done()
  }

  /** What is thrown at an event, or emitted as an error, would end the process. */
  override emit(event: string | symbol, ...args: unknown[]): boolean {
    try {
      if (event !== 'error') return super.emit(event, ...args)
      this.failure ??= args[0] as Error
    } catch (error) {
      this.failure ??= error as Error
    }
    return true
  }

  // What mysql2 calls of a socket's own.
  setNoDelay(): void {}
  setKeepAlive(): void {}

  async until(condition: () => boolean, what: string): Promise<void> {
    for (let turns = 0; !condition(); turns++) {
      if (this.failure) throw this.failure
      if (turns === TURNS) throw new Error(`${what} does not come`)
      await turn()
    }
    await turn() // what comes twice has come by then
  }
}

function greeting(): Buffer {
  const nonce = Buffer.alloc(8, 'x')
  // PROTOCOL_41, TRANSACTIONS, SECURE_CONNECTION; PLUGIN_AUTH
  const capabilities = [Buffer.from([0x00, 0xa2]), Buffer.from([0x08, 0x00])] as const
  const parts = [Buffer.from('\n8.0.0-rehearsal\0\x01\0\0\0'), nonce, Buffer.alloc(1), capabilities[0]]
  parts.push(Buffer.from([45, 2, 0]), capabilities[1], Buffer.from([21]), Buffer.alloc(10), nonce)
  parts.push(Buffer.from('xxxx\0mysql_native_password\0'))
  return packet(0, Buffer.concat(parts))
}

function textRows(n: number): Buffer {
  return rows(Buffer.from(`\x01${n}`))
}

function binaryRows(n: number): Buffer {
  return rows(Buffer.from([0, 0, n, 0, 0, 0, 0, 0, 0, 0]))
}

function rows(row: Buffer): Buffer {
  return Buffer.concat([packet(1, Buffer.from([1])), column(2), eof(3), packet(4, row), eof(5)])
}

/** Of a statement with one parameter that gives one column. */
function prepared(): Buffer {
  const ok = packet(1, Buffer.from([0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0]))
  return Buffer.concat([ok, column(2), eof(3), column(4), eof(5)])
}

/** `n`, a BIGINT. */
function column(sequence: number): Buffer {
  const rest = [0x0c, 63, 0, 20, 0, 0, 0, 8, 0x81, 0, 0, 0, 0]
  return packet(sequence, Buffer.concat([Buffer.from('\x03def\0\0\0\x01n\0'), Buffer.from(rest)]))
}

function eof(sequence: number): Buffer {
  return packet(sequence, Buffer.from([0xfe, 0, 0, 2, 0]))
}

function error(errno: number): Buffer {
  return packet(1, Buffer.concat([Buffer.from([0xff, errno & 0xff, errno >> 8]), Buffer.from('#42000no')]))
}

function packet(sequence: number, body: Buffer): Buffer {
  return Buffer.concat([Buffer.from([body.length, 0, 0, sequence]), body])
}
