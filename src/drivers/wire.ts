import { Socket } from 'node:net'
import { nextTick } from 'node:process'
import tls, { type TLSSocket } from 'node:tls'
import type { Server } from '../driver.js'
import type { ConnectConfig } from './config.js'
import { errorOf, greetingOf, isPreparation, type ServerError } from './packets.js'
import { Replies } from './replies.js'

/**
 * Quiet for so long, a connection is probed, then each second ten times (Node's fixed numbers): a peer that vanished is
 * known after 20 s. mysql2 leaves it at the kernel's two hours, mariadb asks for no probes (facts/errors.md, 4.4).
 */
const KEEPALIVE_AFTER_MS = 10_000

const LOCAL_INFILE = 0xfb
const COM_QUIT = [1, 0, 0, 0, 1]
const COM_QUIT_COMPRESSED = [5, 0, 0, 0, 0, 0, 0, ...COM_QUIT]

/** An error of the socket, as it was before a driver wrote names of its own into it. */
export interface WireFailure {
  readonly error: Error
  readonly code: string
  readonly syscall: string
}

/**
 * The socket below a driver. It is ours, so that what happened on it is known whatever the driver makes of it: mariadb
 * removes all listeners from its socket, mysql2 tells nobody when a stream dies, and neither says whether a statement was
 * sent. So events are seen as they are emitted, not by listening, on the socket and on the TLS layer that the driver puts
 * on top of it.
 */
export class Wire {
  /** What the driver is given. */
  readonly socket: Socket
  /** How often something was written that the server may execute. */
  asks = 0
  #asksBefore = 0
  /** Bytes before encryption: received in all; `receivedAtWrite` is what it was at the last write. */
  received = 0
  receivedAtWrite = 0
  /** Bytes before encryption that were written since something last came back: those of one command. */
  writtenSinceReply = 0
  /** The server of the greeting; undefined until it came. */
  server: Server | undefined
  tlsState: 'not offered' | 'handshake' | 'established' | undefined
  /** The network or the peer ended the connection: not the driver, and not we. */
  hungUp = false
  /** The first error, if there was one. */
  failure: WireFailure | undefined
  /** What the server said before it hung up, without being asked: MySQL's 4031 and its like. */
  farewell: ServerError | undefined
  /** Nothing of the connection is left. */
  isClosed = false
  /** Called once, when the socket is closed and the driver has had its chance to say so. */
  onClosed: (() => void) | undefined
  readonly #isPipe: boolean
  readonly #isCompressed: boolean
  readonly #wantsTls: boolean
  /** What is written to and paused: the socket, or the TLS layer on it. */
  #top: Socket
  #greeting: Buffer | undefined
  /** The next chunk begins a packet that nothing of the current statement came before. */
  #isFresh = false
  #refusal: ServerError | undefined
  #infile = false
  /** While statements are written one behind the other. */
  #replies: Replies | undefined
  #isCorked = false
  #isOpen = false
  #hasEnded = false
  #isHeldBack = false

  constructor(config: ConnectConfig) {
    const { host = 'localhost', port = 3306, socketPath, localAddress } = config
    this.#isPipe = socketPath !== undefined
    this.#isCompressed = Boolean(config.driverOptions?.['compress'])
    this.#wantsTls = Boolean(config.driverOptions?.['ssl'] ?? config.ssl)
    this.socket = this.#top = new Socket()
    this.socket.setNoDelay(true)
    this.socket.setKeepAlive(true, KEEPALIVE_AFTER_MS)
    if (socketPath !== undefined) this.socket.connect({ path: socketPath })
    else this.socket.connect(localAddress === undefined ? { host, port } : { host, port, localAddress })
    this.#watch(this.socket) // after connect(), which sets the socket's `write`
  }

  get alive(): boolean {
    return !this.#hasEnded && !this.socket.destroyed
  }

  /** Something came back after the last command that was written. */
  get hasReplied(): boolean {
    return this.#replies ? this.#replies.areAllBegun : this.received > this.receivedAtWrite
  }

  /** Since the last rest, something was written that the server may execute. */
  get hasAsked(): boolean {
    return this.asks > this.#asksBefore
  }

  /** The server's refusal, when the reply to the last statement began with one. */
  get refusal(): ServerError | undefined {
    return this.#replies ? this.#replies.refusal : this.#refusal
  }

  /** The server has asked for a local file: what is written from now on is that file. */
  get infile(): boolean {
    return this.#replies ? this.#replies.infile : this.#infile
  }

  /** No statement runs: whatever comes now before the next one was not asked for. First called when the session is open. */
  rest(): void {
    this.#isOpen = true
    this.#isFresh = !this.#isCompressed
    this.#asksBefore = this.asks
    this.#refusal = undefined
    this.#infile = false
    this.#replies = undefined
  }

  /** From now until the next rest, statements are written without waiting for the replies to those before. */
  pipeline(): void {
    this.#replies = new Replies()
  }

  /** What is written from now on, behind others, is another statement. */
  next(): void {
    this.#asksBefore = this.asks
    this.writtenSinceReply = 0
  }

  /** What is written in this turn of the loop goes out as one. */
  gather(): void {
    if (this.#isCorked) return
    this.#isCorked = true
    const top = this.#top
    top.cork()
    nextTick(() => {
      this.#isCorked = false
      top.uncork()
    })
  }

  /** What was read already still comes: a chunk or two of 64 kB. */
  holdBack(): void {
    this.#isHeldBack = true
    this.#top.pause()
  }

  letFlow(): void {
    this.#isHeldBack = false
    this.#top.resume()
  }

  /** Whether the connection keeps the process alive. */
  hold(on: boolean): void {
    if (on) this.socket.ref()
    else this.socket.unref()
  }

  /** Asks the server to hang up. Neither driver's own way waits for that, and mariadb's closes the socket at once. */
  sayGoodbye(): void {
    this.letFlow()
    this.#top.write(Uint8Array.from(this.#isCompressed ? COM_QUIT_COMPRESSED : COM_QUIT), ignore)
  }

  /** Drops the connection with a RST: the server hears of it at once, and nothing lingers in the kernel. */
  sever(): void {
    this.#hasEnded = true
    if (this.socket.destroyed) return
    if (this.socket.connecting || this.#isPipe) this.socket.destroy()
    else this.socket.resetAndDestroy()
  }

  /**
   * mariadb removes the listeners of a TLS socket whose handshake failed, Node's own among them, and the error that Node
   * emits next would end the process (facts/errors.md, 3.9). Here one listener always stays.
   */
  #watch(socket: Socket): void {
    const resume = socket.resume.bind(socket)
    const removeAllListeners = socket.removeAllListeners.bind(socket)
    const emit = socket.emit.bind(socket) as (event: string | symbol, ...args: unknown[]) => boolean
    const write = socket.write.bind(socket) as (...args: unknown[]) => boolean
    socket.emit = (event: string | symbol, ...args: unknown[]): boolean => {
      try {
        if (event === 'data') return this.#hears(socket, args[0] as Buffer) || emit(event, args[0])
        this.#sees(event, args[0])
        return emit(event, ...args)
      } catch (error) {
        // A driver that trips over what it reads (mariadb over JSON that is none) takes its session down, not the process.
        this.#fails(error as Error)
        socket.destroy(error as Error)
        return true
      } finally {
        if (event === 'end') socket.destroy() // half a conversation is of no use, and could last
        // mariadb reports with setImmediate, and an error of the TLS layer comes after this socket's close.
        if (event === 'close' && socket === this.socket) setImmediate(() => setImmediate(() => this.#close()))
      }
    }
    socket.write = (chunk: Uint8Array | string, ...rest: unknown[]): boolean => {
      if (this.received > this.receivedAtWrite) this.writtenSinceReply = 0
      this.writtenSinceReply += chunk.length
      if (this.#isCompressed || !isPreparation(chunk)) this.asks++
      this.receivedAtWrite = this.received
      if (typeof chunk !== 'string') this.#replies?.wrote(chunk)
      const callback = rest.pop()
      if (typeof callback !== 'function') return write(chunk, ...rest, callback)
      // Node tells the writer of an error before it destroys the socket.
      const written: Written = (error) => {
        if (error) this.#fails(error)
        callback(error)
      }
      return write(chunk, ...rest, written)
    }
    // A Readable of mariadb's resumes the socket whenever it could take one more row.
    socket.resume = () => (this.#isHeldBack ? socket : resume())
    socket.removeAllListeners = (event) => {
      // mysql2 says so, and only later destroys the socket, when it will have nothing more to do with this session.
      if (this.#isOpen && event === 'data') this.#hasEnded = true
      // With an argument, be it undefined, it would remove the listeners of an event of that name.
      if (event === undefined) removeAllListeners()
      else removeAllListeners(event)
      return event === undefined || event === 'error' ? socket.on('error', ignore) : socket
    }
    socket.on('error', ignore)
  }

  /** True when the chunk is not for the driver, or has been given to it. */
  #hears(socket: Socket, chunk: Buffer): boolean {
    this.received += chunk.length
    if (!this.server) return this.#hearsGreeting(socket, chunk)
    if (this.#replies) return this.#hearsReplies(socket, chunk, this.#replies)
    if (!this.#isFresh) return false
    this.#isFresh = false
    if (chunk[4] === LOCAL_INFILE) this.#infile = true
    const error = errorOf(chunk)
    if (!error) return false
    if (chunk[3] !== 0) {
      this.#refusal = error
      return false
    }
    this.#hearsFarewell(socket, error)
    return true
  }

  #hearsReplies(socket: Socket, chunk: Buffer, replies: Replies): boolean {
    const at = replies.hear(chunk)
    if (replies.farewell === undefined) return false
    if (at > 0) {
      // A second time through here finds nothing that would be followed.
      this.#replies = undefined
      this.#isFresh = false
      this.received -= chunk.length
      socket.emit('data', chunk.subarray(0, at))
    }
    this.#hearsFarewell(socket, replies.farewell)
    return true
  }

  /**
   * The packets of a reply are numbered from 1. Number 0 was sent before the statement was read. mysql2 would take it for the
   * reply and write "packets out of order" to the console, mariadb's ping would take it for a good one (facts, 1.3).
   */
  #hearsFarewell(socket: Socket, error: ServerError): void {
    this.farewell = error
    this.hungUp = true
    socket.destroy(error)
  }

  /** Reads the greeting on its way to the driver, which may put TLS on the wire while it handles it. */
  #hearsGreeting(socket: Socket, chunk: Buffer): boolean {
    this.#greeting = this.#greeting ? Buffer.concat([this.#greeting, chunk]) : chunk
    const greeting = greetingOf(this.#greeting)
    if (!greeting) return false
    this.server = greeting.server
    this.#greeting = undefined
    if (!this.#wantsTls) return false
    if (!greeting.offersTls) {
      this.tlsState = 'not offered'
      return false
    }
    const secured = (top: TLSSocket): void => {
      this.tlsState = 'handshake'
      this.#top = top
      this.#watch(top)
    }
    // A second time through here finds the server known, and gives the chunk to the driver.
    this.received -= chunk.length
    return watchingTls(secured, () => socket.emit('data', chunk))
  }

  #sees(event: string | symbol, argument: unknown): void {
    if (event === 'end') {
      this.#hasEnded = true
      this.hungUp = true
    } else if (event === 'error') this.#fails(argument as Error)
    else if (event === 'secureConnect') this.tlsState = 'established'
  }

  #fails(error: Error): void {
    this.#hasEnded = true
    // Node's error for several addresses that all failed has no text of its own.
    if (error instanceof AggregateError && !error.message)
      error.message = error.errors.map((each: Error) => each.message).join('; ')
    const { code = '', syscall = '' } = error as NodeJS.ErrnoException
    this.failure ??= { error, code, syscall }
    // EPROTO is OpenSSL's: the peer is there, and does not speak TLS as we do.
    if (code === 'EPROTO') return
    if (syscall || code === 'ECONNRESET' || code === 'EPIPE' || error instanceof AggregateError) this.hungUp = true
  }

  #close(): void {
    if (this.isClosed) return
    this.isClosed = true
    const { onClosed } = this
    this.onClosed = undefined
    onClosed?.()
  }
}

type Written = (error?: Error | null) => void

function ignore(): void {}

/**
 * Both drivers call `tls.connect` while they handle the greeting, in the same turn. For just that long it is replaced by
 * one that shows the socket; no other code can run meanwhile.
 */
function watchingTls<T>(seen: (socket: TLSSocket) => void, during: () => T): T {
  const exported = tls as { connect: (...args: unknown[]) => unknown }
  const { connect } = exported
  exported.connect = (...args) => {
    const socket = Reflect.apply(connect, tls, args) as TLSSocket
    seen(socket)
    return socket
  }
  try {
    return during()
  } finally {
    exported.connect = connect
  }
}
