import type { Socket } from 'node:net'
import { performance } from 'node:perf_hooks'
import type { Sample } from '../contest.js'
import { mysql2Callback, type Setting } from '../pools.js'
import { LEAD_MS } from './load.js'
import { idOf, READ, READINGS } from './readers.js'

const HEADER_BYTES = 4
const COM_QUERY = 3
const EOF = 0xfe
const ERR = 0xff
const EOF_BELOW_BYTES = 9
// One behind the columns, one behind the rows.
const EOFS_OF_A_REPLY = 2

/** What a client could do at the best: ready-made packets, and of the replies nothing is read but where they end. */
export async function openSockets(setting: Setting, count: number): Promise<BareSockets> {
  const packets = readyMade()
  const sockets = Array.from({ length: count }, async () => new BareSocket(await logIn(setting), packets))
  return new BareSockets(await Promise.all(sockets))
}

export class BareSockets {
  readonly #sockets: readonly BareSocket[]

  constructor(sockets: readonly BareSocket[]) {
    this.#sockets = sockets
  }

  /** As `crowd()`, with as many reads under way as that has callers. */
  async crowd(callers: number, lastsMs: number): Promise<Sample> {
    const opensAt = performance.now() + LEAD_MS
    const endsAt = opensAt + lastsMs
    const replies = (): number => this.#sockets.reduce((sum, socket) => sum + socket.replies, 0)
    const look = (): Look => ({ at: performance.now(), cpu: process.cpuUsage(), replies: replies() })
    let opened: Look | undefined
    let ended: Look | undefined
    const goesOn = (): boolean => {
      const now = performance.now()
      if (now >= opensAt) opened ??= look()
      if (now >= endsAt) ended ??= look()
      return now < endsAt
    }
    await Promise.all(
      this.#sockets.map((socket, at) => socket.run(Math.floor((callers + at) / this.#sockets.length), goesOn)),
    )
    const [from, to] = [opened ?? look(), ended ?? look()]
    const done = to.replies - from.replies
    const cpu = to.cpu.user + to.cpu.system - from.cpu.user - from.cpu.system
    return { perSecond: (done / (to.at - from.at)) * 1000, cpuUs: cpu / done, p50Ms: NaN, p99Ms: NaN }
  }

  end(): void {
    for (const socket of this.#sockets) socket.end()
  }
}

interface Look {
  readonly at: number
  readonly cpu: NodeJS.CpuUsage
  readonly replies: number
}

interface Packets {
  readonly bytes: Buffer
  /** Where each begins, and where the last ends. */
  readonly offsets: readonly number[]
}

class BareSocket {
  replies = 0
  readonly #socket: Socket
  readonly #packets: Packets
  #next = 0
  #underWay = 0
  #eofs = 0
  /** How much of the next chunk belongs to a packet that was seen already. */
  #skip = 0
  /** Of a packet that is too short to know it. */
  #start: Buffer | undefined
  #goesOn: () => boolean = () => false
  #over: (() => void) | undefined
  #failed: ((error: Error) => void) | undefined

  constructor(socket: Socket, packets: Packets) {
    this.#socket = socket
    this.#packets = packets
    socket.on('data', (chunk: Buffer) => this.#hear(chunk))
    for (const event of ['error', 'close']) socket.on(event, () => this.#failed?.(new Error('the socket was closed')))
  }

  /** `depth` reads under way, until there shall be no more, and none is. */
  run(depth: number, goesOn: () => boolean): Promise<void> {
    this.#goesOn = goesOn
    return new Promise((resolve, reject) => {
      this.#over = resolve
      this.#failed = reject
      this.#write(depth)
    })
  }

  end(): void {
    this.#failed = undefined
    this.#socket.destroy()
  }

  #write(count: number): void {
    this.#underWay += count
    const { bytes, offsets } = this.#packets
    for (let left = count; left > 0;) {
      const part = Math.min(left, READINGS - this.#next)
      this.#socket.write(bytes.subarray(offsets[this.#next], offsets[this.#next + part]))
      this.#next = (this.#next + part) % READINGS
      left -= part
    }
  }

  #hear(heard: Buffer): void {
    const chunk = this.#start ? Buffer.concat([this.#start, heard]) : heard
    this.#start = undefined
    let at = this.#skip
    this.#skip = 0
    while (at + HEADER_BYTES < chunk.length) {
      const length = (chunk[at] as number) | ((chunk[at + 1] as number) << 8) | ((chunk[at + 2] as number) << 16)
      const first = chunk[at + HEADER_BYTES]
      if (first === EOF && length < EOF_BELOW_BYTES) this.#eofs++
      else if (first === ERR) this.#failed?.(new Error(chunk.toString('latin1', at, at + HEADER_BYTES + length)))
      at += HEADER_BYTES + length
    }
    if (at < chunk.length) this.#start = chunk.subarray(at)
    else this.#skip = at - chunk.length
    this.#answered(Math.floor(this.#eofs / EOFS_OF_A_REPLY))
  }

  #answered(count: number): void {
    this.#eofs -= count * EOFS_OF_A_REPLY
    this.#underWay -= count
    this.replies += count
    if (count > 0 && this.#goesOn()) this.#write(count)
    else if (this.#underWay === 0) this.#over?.()
  }
}

/** In an order that is not that of the table. */
function readyMade(): Packets {
  const packets: Buffer[] = []
  const offsets = [0]
  for (let turn = 0; turn < READINGS; turn++) {
    const sql = READ.replace('?', String(idOf(turn)))
    const packet = Buffer.alloc(HEADER_BYTES + 1 + sql.length)
    packet.writeUIntLE(1 + sql.length, 0, 3)
    packet[HEADER_BYTES] = COM_QUERY
    packet.write(sql, HEADER_BYTES + 1, 'latin1')
    packets.push(packet)
    offsets.push((offsets.at(-1) as number) + packet.length)
  }
  return { bytes: Buffer.concat(packets), offsets }
}

/** mysql2 logs in, in whichever way the server wants, and has no more to do with it. It never asks for replies without EOF. */
function logIn(setting: Setting): Promise<Socket> {
  const { host, port, user, password, database } = setting
  const connection = mysql2Callback.createConnection({
    host,
    port,
    user,
    password,
    database,
    flags: ['-CLIENT_QUERY_ATTRIBUTES'], // MySQL would want them in each packet
  })
  return new Promise((resolve, reject) => {
    connection.connect((error) => {
      if (error) return reject(error)
      const { stream } = connection as unknown as { readonly stream: Socket }
      for (const event of ['data', 'error', 'close', 'end']) stream.removeAllListeners(event)
      resolve(stream)
    })
  })
}
