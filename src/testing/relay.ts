import { connect, createServer, type Server, type Socket } from 'node:net'
import { freePort } from './port.js'

/**
 * What becomes of a request. `before`: the server never sees it. `after`: the server has answered it, and the answer is lost.
 * The loss is a RST, a FIN, or silence with the sockets left open.
 */
export type Loss = `${'reset' | 'cut' | 'stall'}-${'before' | 'after'}`

/** Sees every chunk on its way to the server before it goes on. Statements can be read in it, unless TLS or compression is on. */
export type RequestHook = (chunk: Buffer, link: Link) => Loss | undefined

export interface RelayOptions {
  readonly delayMs?: number
  readonly bytesPerSecond?: number
  readonly onRequest?: RequestHook
}

interface Address {
  readonly host: string
  readonly port: number
}

/**
 * A TCP relay on loopback that fails on demand. What is held back by a stall is kept, in order, and flows again at `resume`.
 * When the server itself is down, the application sees a connection that is reset before the greeting: `refuse` tells the truth.
 */
export async function startRelay(target: Address, options: RelayOptions = {}): Promise<Relay> {
  const relay = new Relay({ host: target.host, port: target.port }, await freePort(), options)
  await relay.accept()
  return relay
}

/** A hook that fails the first `times` requests that contain the text, and no other. */
export function losing(text: string, loss: Loss, times = 1): RequestHook {
  let left = times
  return (chunk) => {
    if (left === 0 || !chunk.includes(text)) return undefined
    left--
    return loss
  }
}

export class Relay implements AsyncDisposable {
  readonly host = '127.0.0.1'
  readonly port: number
  readonly target: Address
  /** Added to every chunk each way: half of a round trip. */
  delayMs: number
  /** The rate of each connection, each way. */
  bytesPerSecond: number
  onRequest: RequestHook | undefined
  /** Connections accepted so far, with those that were dropped at once. */
  accepted = 0
  /** Requests that were failed because `onRequest` asked for it: a test that lost nothing has tested nothing. */
  losses = 0
  /** What the application sent, and what the server sent, whether or not it got through. */
  bytesUp = 0
  bytesDown = 0
  readonly #links = new Set<Link>()
  #welcomes: 'serve' | 'keep silent' | 'drop' = 'serve'
  #holdsReplies = false
  #listener: Server | undefined

  /** @internal Call `startRelay`. */
  constructor(target: Address, port: number, options: RelayOptions) {
    this.target = target
    this.port = port
    this.delayMs = options.delayMs ?? 0
    this.bytesPerSecond = options.bytesPerSecond ?? Infinity
    this.onRequest = options.onRequest
  }

  /** Connections that the application has with the relay now. */
  get open(): number {
    return [...this.#links].filter((link) => link.hasClient).length
  }

  /** The same URL or config, by way of the relay. */
  url(direct: string): string {
    const url = new URL(direct)
    url.hostname = this.host
    url.port = String(this.port)
    return url.href
  }

  config<Config extends Address>(direct: Config): Config {
    return { ...direct, host: this.host, port: this.port }
  }

  /** A black hole: nothing flows either way, on the connections of now or on new ones, and no socket closes. */
  stall(): void {
    this.#welcomes = 'keep silent'
    this.stallExisting()
  }

  /** What a firewall does that forgot its connections: those of now fall silent, new ones work. */
  stallExisting(): void {
    for (const link of this.#links) link.stall()
  }

  /** Requests reach the server and nothing comes back, on the connections of now or on new ones. */
  swallowReplies(): void {
    this.#holdsReplies = true
    for (const link of this.#links) link.holdReplies()
  }

  /** New connections are accepted, and hear nothing. */
  greetNever(): void {
    this.#welcomes = 'keep silent'
  }

  /** New connections are accepted, and closed at once. */
  dropDials(): void {
    this.#welcomes = 'drop'
  }

  /** New connections are refused (ECONNREFUSED) until `accept`; those of now are left alone. */
  async refuse(): Promise<void> {
    const listener = this.#listener
    this.#listener = undefined
    listener?.close() // its callback would wait for the connections, too
    await new Promise(setImmediate)
  }

  async accept(): Promise<void> {
    if (this.#listener) return
    const listener = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => this.#welcome(socket))
    this.#listener = listener
    await new Promise<void>((resolve, reject) => {
      listener.once('error', reject)
      listener.listen(this.port, this.host, resolve)
    })
  }

  /** Ends stalls, held replies, silent and dropped dials. What was held flows on. */
  resume(): void {
    this.#welcomes = 'serve'
    this.#holdsReplies = false
    for (const link of this.#links) link.resume()
  }

  /** RST to both ends of every connection of now. */
  reset(): void {
    for (const link of this.#links) link.reset()
  }

  /** FIN to both ends of every connection of now. */
  cut(): void {
    for (const link of this.#links) link.cut()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.refuse()
    for (const link of this.#links) link.reset()
  }

  #welcome(client: Socket): void {
    this.accepted++
    if (this.#welcomes === 'drop') {
      client.on('error', () => {})
      client.destroy()
      return
    }
    const link = new Link(this, this.accepted, client, () => this.#links.delete(link))
    this.#links.add(link)
    if (this.#holdsReplies) link.holdReplies()
    if (this.#welcomes === 'serve') link.dial()
  }
}

/** One connection of the application, and the relay's own connection to the server for it. */
export class Link {
  /** 1 for the first connection that the relay accepted. */
  readonly number: number
  readonly #relay: Relay
  readonly #client: Socket
  readonly #up: Flow
  readonly #down: Flow
  readonly #forget: () => void
  #server: Socket | undefined
  #lossAtReply: Loss | undefined
  #hasClient = true

  /** @internal */
  constructor(relay: Relay, number: number, client: Socket, forget: () => void) {
    this.number = number
    this.#relay = relay
    this.#client = client
    this.#forget = forget
    this.#up = new Flow(relay, client)
    this.#down = new Flow(relay)
    this.#listen(client, this.#up, (chunk) => this.#request(chunk))
    for (const event of ['end', 'close']) client.once(event, () => (this.#hasClient = false))
  }

  /** False as soon as the application has closed its end, whatever the relay still holds back. */
  get hasClient(): boolean {
    return this.#hasClient
  }

  /** @internal */
  dial(): void {
    const { host, port } = this.#relay.target
    const server = connect({ host, port, allowHalfOpen: true, noDelay: true })
    this.#server = server
    this.#listen(server, this.#down, (chunk) => this.#reply(chunk))
    this.#down.connect(server, this.#client)
    this.#up.connect(this.#client, server)
  }

  /** Nothing flows either way, and no socket closes. */
  stall(): void {
    this.#up.hold()
    this.#down.hold()
  }

  holdReplies(): void {
    this.#down.hold()
  }

  resume(): void {
    if (!this.#server) this.dial()
    this.#up.resume()
    this.#down.resume()
  }

  /** RST to both ends. */
  reset(): void {
    this.#end((socket) => socket.resetAndDestroy())
  }

  /** FIN to both ends. */
  cut(): void {
    this.#end((socket) => socket.destroySoon())
  }

  #request(chunk: Buffer): void {
    const loss = this.#relay.onRequest?.(chunk, this)
    if (loss) this.#relay.losses++
    if (loss?.endsWith('before')) this.#lose(loss)
    else if (loss) this.#lossAtReply = loss
    this.#relay.bytesUp += chunk.length
    this.#up.push(chunk)
  }

  #reply(chunk: Buffer): void {
    if (this.#lossAtReply) this.#lose(this.#lossAtReply)
    this.#lossAtReply = undefined
    this.#relay.bytesDown += chunk.length
    this.#down.push(chunk)
  }

  #lose(loss: Loss): void {
    if (loss.startsWith('reset')) this.reset()
    else if (loss.startsWith('cut')) this.cut()
    else this.stall()
  }

  #listen(socket: Socket, flow: Flow, onData: (chunk: Buffer) => void): void {
    socket.on('data', onData)
    socket.on('end', () => flow.push('FIN'))
    socket.on('error', () => flow.push('RST'))
    socket.on('close', () => {
      if (this.#client.destroyed && (this.#server?.destroyed ?? true)) this.#forget()
    })
  }

  #end(how: (socket: Socket) => void): void {
    this.#up.close()
    this.#down.close()
    how(this.#client)
    if (this.#server) how(this.#server)
  }
}

/** So little is taken in ahead of a receiver that does not read that the sender feels it, as it would without the relay. */
const MOST_IN_LINE = 256 * 1024

/** One direction of a link: a line of chunks, each with the time from which it may go on. */
class Flow {
  readonly #relay: Relay
  #from: Socket | undefined
  #to: Socket | undefined
  #line: { what: Buffer | 'FIN' | 'RST'; readonly due: number }[] = []
  #bytesInLine = 0
  #state: 'flowing' | 'held' | 'closed' = 'flowing'
  #isBlocked = false
  #nextAt = 0
  #timer: NodeJS.Timeout | undefined

  constructor(relay: Relay, from?: Socket) {
    this.#relay = relay
    this.#from = from
  }

  connect(from: Socket, to: Socket): void {
    this.#from = from
    this.#to = to
    to.on('drain', () => {
      this.#isBlocked = false
      this.#pump()
    })
    this.#pump()
  }

  hold(): void {
    if (this.#state === 'flowing') this.#state = 'held'
  }

  resume(): void {
    if (this.#state === 'held') this.#state = 'flowing'
    this.#pump()
  }

  /** What is in line is lost. */
  close(): void {
    this.#state = 'closed'
    this.#line = []
    clearTimeout(this.#timer)
  }

  push(what: Buffer | 'FIN' | 'RST'): void {
    if (this.#state === 'closed') return
    this.#line.push({ what, due: performance.now() + this.#relay.delayMs })
    if (typeof what !== 'string') this.#bytesInLine += what.length
    if (this.#bytesInLine > MOST_IN_LINE) this.#from?.pause()
    this.#pump()
  }

  #pump(): void {
    clearTimeout(this.#timer)
    for (
      let first = this.#line[0];
      first && this.#to && this.#state === 'flowing' && !this.#isBlocked;
      first = this.#line[0]
    ) {
      const wait = Math.max(first.due, this.#nextAt) - performance.now()
      if (wait > 0) {
        this.#timer = setTimeout(() => this.#pump(), wait)
        return
      }
      if (typeof first.what === 'string') {
        this.#line.shift()
        if (first.what === 'FIN') this.#to.end()
        else this.#to.resetAndDestroy()
        continue
      }
      const piece = first.what.subarray(0, Math.ceil(this.#relay.bytesPerSecond / 50))
      if (piece.length < first.what.length) first.what = first.what.subarray(piece.length)
      else this.#line.shift()
      this.#bytesInLine -= piece.length
      this.#nextAt = performance.now() + (piece.length / this.#relay.bytesPerSecond) * 1000
      this.#isBlocked = !this.#to.write(piece)
    }
    if (this.#bytesInLine <= MOST_IN_LINE) this.#from?.resume()
  }
}
