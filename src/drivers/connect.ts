import type { Server, Session } from '../driver.js'
import { classify } from '../faults/classify.js'
import { Fault } from '../faults/fault.js'
import { passwordOf, type ConnectConfig } from './config.js'
import { Wire } from './wire.js'

/** How a driver connects, and how it shows that the server refused. */
export interface Connector {
  /** Whether the error is an ERR packet, rather than the driver's own. */
  isAnswer(error: unknown): boolean
  /**
   * Starts the handshake on the wire; `done` is called when it is over, at least once. Returns what makes a session of it if it
   * went well. Throws for options that the driver does not take.
   */
  start(wire: Wire, password: string | undefined, done: (error?: unknown) => void): (server: Server) => Session
}

/**
 * One attempt to connect. What comes first decides: the driver's report, the end of the wire, or the signal. On failure
 * nothing of the attempt remains. Rejects with a Fault.
 */
export function connectWith(loading: Promise<Connector>, config: ConnectConfig, signal: AbortSignal): Promise<Session> {
  return new Promise((resolve, reject) => {
    let wire: Wire | undefined
    const abort = (): void => {
      wire?.sever()
      reject(new Fault('connect-timeout', 'lost', 'none', signal.reason))
    }
    const open = async (): Promise<Session> => {
      const connector = await loading.catch((error: unknown) => refuse('denied', error))
      // A vault that cannot be reached now may be in a moment.
      const password = await passwordOf(config).catch((error: unknown) => refuse('unreachable', error))
      signal.throwIfAborted()
      try {
        wire = new Wire(config)
      } catch (error) {
        return refuse('denied', error) // a port number that is none
      }
      return await shakeHands(wire, connector, password)
    }
    if (signal.aborted) {
      abort()
      return
    }
    signal.addEventListener('abort', abort, { once: true })
    void open()
      .then(resolve, reject)
      .finally(() => signal.removeEventListener('abort', abort))
  })
}

function shakeHands(wire: Wire, connector: Connector, password: string | undefined): Promise<Session> {
  return new Promise((resolve, reject) => {
    const fail = (fault: Fault): void => {
      wire.onClosed = undefined
      wire.sever()
      reject(fault)
    }
    let isDone = false
    const done = (error?: unknown): void => {
      if (isDone) return
      isDone = true
      if (error) fail(classify(error, evidenceOf(wire, connector.isAnswer(error))))
      else resolve(makeSession(wire.server ?? { flavour: 'mysql', version: '' }))
    }
    wire.onClosed = () =>
      done(wire.failure?.error ?? new Error('the server closed the connection during the handshake'))
    let makeSession: (server: Server) => Session
    try {
      makeSession = connector.start(wire, password, done)
    } catch (error) {
      fail(new Fault('denied', 'lost', 'none', error))
    }
  })
}

function evidenceOf(wire: Wire, answered: boolean): Parameters<typeof classify>[1] {
  const { server, alive, hungUp, tlsState: tls } = wire
  return {
    phase: 'connect',
    server,
    answered,
    alive,
    hungUp,
    tls,
    sent: true,
    writeFailed: false,
    replied: false,
    sentBytes: 0,
  }
}

function refuse(kind: 'denied' | 'unreachable', error: unknown): never {
  throw new Fault(kind, 'lost', 'none', error)
}
