import { onAbort } from '../abort.js'
import type { Budget, Permit } from '../budget.js'
import type { Clock } from '../clock.js'
import type { Driver, Session } from '../driver.js'
import { HoldfastError } from '../errors.js'
import { Fault, toFault } from '../faults/fault.js'
import { learn, whereIs, type Home, type Learned } from './limits.js'
import type { SessionInit } from './options.js'
import { askForSharing, isReadOnlyNow, makeReadOnlyAgain, type Sharing } from './read-only.js'

/** A session ready to be lent, with what it learned. */
export interface Opened {
  readonly session: Session
  readonly permit: Permit
  readonly learned: Learned
  readonly sharing: Sharing
}

export interface OpenerOptions {
  readonly connectTimeoutMs: number
  readonly sessionInit?: SessionInit
  readonly lanes: 'reads' | 'off'
}

const NOT_WANTED: Sharing = { noLane: "lanes: 'off'" }
const AUTOCOMMIT_OFF: Sharing = { noLane: 'autocommit is off' }
// Longer than this for a permit, and the waiter should know that others hold the account's sessions.
const RESERVE_WITHIN_MS = 1_000

/** Opens sessions: permit, connection, what the server tells, sessionInit; all within connectTimeoutMs. */
export class Opener {
  readonly #driver: Driver
  readonly #budget: Budget
  readonly #clock: Clock
  readonly #options: OpenerOptions

  constructor(driver: Driver, budget: Budget, clock: Clock, options: OpenerOptions) {
    this.#driver = driver
    this.#budget = budget
    this.#clock = clock
    this.#options = options
  }

  /** Rejects with a Fault; when `signal` aborts, at once. Nothing of a failed attempt remains. */
  async open(signal: AbortSignal): Promise<Opened> {
    const permit = await this.#reserve(signal)
    try {
      return await this.#connect(permit, signal)
    } catch (error) {
      permit[Symbol.dispose]()
      throw error
    }
  }

  async #reserve(signal: AbortSignal): Promise<Permit> {
    return within(
      this.#clock,
      RESERVE_WITHIN_MS,
      signal,
      async (inTime) => {
        const permit = await this.#budget.reserve(inTime)
        if (inTime.aborted) permit[Symbol.dispose]()
        return permit
      },
      () => {
        const others = new Error('all sessions that the account may hold are held by other pools of this process')
        return new Fault('account-limit', 'lost', 'none', others)
      },
    )
  }

  async #connect(permit: Permit, signal: AbortSignal): Promise<Opened> {
    const { connectTimeoutMs } = this.#options
    let session: Session | undefined
    try {
      return await within(
        this.#clock,
        connectTimeoutMs,
        signal,
        async (inTime) => {
          session = await this.#driver.connect(permit, inTime)
          // The questions below hang with the server: dropping the session makes them fail.
          if (inTime.aborted) session.destroy()
          else inTime.addEventListener('abort', () => session?.destroy(), { once: true })
          const sharing = this.#options.lanes === 'off' ? NOT_WANTED : askForSharing(session, this.#clock)
          const [shared, before] = await Promise.all([sharing, learn(session)])
          if (shared.isReadOnly) await makeReadOnlyAgain(session)
          await initialize(session, this.#options.sessionInit)
          // Once more, for what sessionInit may have changed, but only where it matters.
          const opened = { session, permit, learned: before, sharing: shared }
          const now = this.#options.sessionInit === undefined ? opened : await again(opened)
          return now.learned.autocommit ? now : { ...now, sharing: AUTOCOMMIT_OFF }
        },
        () => {
          const late = new HoldfastError(
            'CONNECT_TIMEOUT',
            `the server did not complete the connection within ${connectTimeoutMs} ms (connectTimeoutMs)`,
          )
          return new Fault('connect-timeout', 'lost', 'none', late)
        },
      )
    } catch (error) {
      session?.destroy()
      throw toFault(error)
    }
  }
}

/** sessionInit may raise wait_timeout, which the pool must know; what a reset restores is the state before it. */
async function again(opened: Opened): Promise<Opened> {
  const { session, learned, sharing } = opened
  const reading = sharing.noLane === undefined ? isReadOnlyNow(session) : false
  const [isReadOnly, { limits, autocommit }] = await Promise.all([reading, learn(session)])
  return { ...opened, learned: { ...learned, limits, autocommit }, sharing: { ...sharing, isReadOnly } }
}

async function initialize(session: Session, sessionInit: SessionInit | undefined): Promise<void> {
  try {
    if (typeof sessionInit === 'function') {
      await sessionInit({ query: (sql, values) => session.query({ sql, values }) })
    } else if (sessionInit !== undefined) {
      for (const sql of [sessionInit].flat()) await session.query({ sql })
    }
  } catch (error) {
    const { kind, message, error: cause } = toFault(error)
    throw new Fault(
      session.alive ? 'init' : kind,
      'lost',
      'none',
      new Error(`sessionInit failed: ${message}`, { cause }),
    )
  }
}

/** Makes a session as good as new: nothing that its last user left behind is seen by the next. */
export async function cleanse(session: Session, learned: Learned, sessionInit: SessionInit | undefined): Promise<void> {
  await session.reset()
  if (learned.restore !== undefined) {
    await session.query({ sql: learned.restore })
    await goHome(session, learned.home)
  }
  await initialize(session, sessionInit)
}

/** No reset takes back `USE` and `SET ROLE`. */
async function goHome(session: Session, home: Home): Promise<void> {
  const now = await whereIs(session)
  if (now.role !== home.role) throw new Error('another role is set')
  if (now.database === home.database) return
  if (home.database === '') throw new Error('a database is in use')
  await session.query({ sql: `USE \`${home.database.replaceAll('`', '``')}\`` })
}

/** Runs a task whose signal aborts after `ms`, or with `signal`; settles then, whatever the task does. */
export async function within<T>(
  clock: Clock,
  ms: number,
  signal: AbortSignal | undefined,
  task: (signal: AbortSignal) => Promise<T>,
  late: () => unknown,
): Promise<T> {
  const controller = new AbortController()
  const abort = (): void => controller.abort(signal?.reason)
  if (signal?.aborted) abort()
  const release = signal && !signal.aborted ? onAbort(signal, abort) : undefined
  const timer = clock.after(ms, () => controller.abort(late()))
  try {
    return await new Promise<T>((resolve, reject) => {
      const give = (): void => reject(controller.signal.reason as Error)
      if (controller.signal.aborted) return give()
      controller.signal.addEventListener('abort', give, { once: true })
      task(controller.signal).then(resolve, reject)
    })
  } finally {
    timer.cancel()
    release?.()
  }
}
