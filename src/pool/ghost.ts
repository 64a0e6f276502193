import { every } from '../clock.js'
import type { Session } from '../driver.js'
import { HoldfastError } from '../errors.js'
import type { Lender } from './lender.js'
import { onlyValue, type Identity } from './limits.js'
import { within } from './opener.js'
import type { Slot } from './slot.js'

// In a pool that works, somebody comes home sooner than that.
const HOME_WITHIN_MS = 500
// An errand that found no session in this time finds its statement ended by itself, or asks again.
const ERRAND_WITHIN_MS = 30_000
// When no session is left to look through: how long a ghost is waited for before its place is used for a new one.
// A cut stream's server notices at its next write.
const LAST_GHOST_MS = { running: 250, dropped: 10 }
// Once the server is done with a statement its reply is a round trip away.
const REPLY_WITHIN_MS = 1_000
// Where the server does not tell who runs what, a statement is given this long before its connection is dropped.
const UNSEEN_FOR_MS = 30_000
const MOST_FAILURES = 8
// MariaDB's KILL may wait for up to 2 s for a lock that all who SLEEP share.
const ANSWER_WITHIN_MS = 5_000
const PING_WITHIN_MS = 1_000
// How often a thread that was told to end is looked for. A long rollback takes its time.
const LOOK_AGAIN_MS = [5, 20, 50, 100, 250, 500, 1_000]

/**
 * Ends on the server what the caller no longer waits for. Until the server has let go, the slot is a ghost.
 *
 * `replied` settles when the statement's reply has come after all, or the connection has ended. Without it the
 * connection was dropped already.
 */
export async function layGhost(lender: Lender, slot: Slot, replied?: Promise<unknown>): Promise<void> {
  const { session, learned } = slot
  if (session === undefined) return
  const over = new AbortController()
  let laid = false
  const lay = (): void => {
    if (!laid) lender.lay(slot)
    laid = true
  }
  const ended = replied?.then(noop, noop).then(() => {
    // With nobody left to look through, its place went to the session that ends it: that errand goes on.
    if (!laid) over.abort()
    lay()
  })
  const watch = every(lender.clock, replied ? LAST_GHOST_MS.running : LAST_GHOST_MS.dropped, () => {
    if (!lender.onlyGhosts) return
    lay()
    session.destroy()
  })
  const end = (what: 'QUERY' | 'CONNECTION'): Promise<boolean> =>
    endThread(lender, learned?.identity, what, over.signal).then(
      () => true,
      () => false,
    )
  const isDone = await end(replied ? 'QUERY' : 'CONNECTION')
  if (ended && !laid) await Promise.race([ended, pause(lender, isDone ? REPLY_WITHIN_MS : UNSEEN_FOR_MS, over.signal)])
  // The server is done and no reply came: the peer is silent, or we hung up. It must not count the session any longer.
  if (replied && !over.signal.aborted) await end('CONNECTION')
  if (!over.signal.aborted) session.destroy()
  watch.cancel()
  over.abort()
  lay()
}

/**
 * Ends the statement (QUERY), or the whole session (CONNECTION), of a thread of our own. Resolves when the server no
 * longer runs it, or `over` says so; rejects when nobody could look.
 */
export async function endThread(
  lender: Lender,
  identity: Identity | undefined,
  what: 'QUERY' | 'CONNECTION',
  over: AbortSignal,
): Promise<void> {
  if (!identity?.peer) throw new Error('the server does not tell who is who')
  let failures = 0
  for (let look = 0; !over.aborted; look++) {
    const found = await onErrand(lender, over, async (session): Promise<'over' | 'runs' | 'unseen'> => {
      const command = await commandOf(session, identity)
      if (what === 'CONNECTION' ? command === undefined : command === 'Sleep') return 'over'
      if (command === undefined) return 'unseen'
      // Once is enough: a thread that rolls back must not be told again and again.
      if (look === failures && !over.aborted)
        await session.query({ sql: `KILL ${what} ${identity.connectionId}` }).catch(noop)
      return 'runs'
    }).catch((error: unknown) => {
      // The session that was to look was dead or silent itself: another may not be.
      if (error instanceof HoldfastError || ++failures > MOST_FAILURES) throw error
      return 'runs'
    })
    if (found === 'over') return
    // A procedure with another definer runs as that one, out of our sight: it can only be waited for.
    if (found === 'unseen') throw new Error('the thread cannot be seen')
    await pause(lender, LOOK_AGAIN_MS[Math.min(look, LOOK_AGAIN_MS.length - 1)] as number, over)
  }
}

/**
 * Whether the server does nothing on a connection from which an answer is awaited: what was sent, or the answer, was lost on
 * the way. False when nobody could look.
 */
export async function isSilent(lender: Lender, { learned, session }: Slot): Promise<boolean> {
  const identity = learned?.identity
  if (!identity?.peer) return false
  const over = new AbortController()
  void session?.ended.then(() => over.abort())
  const idle = (other: Session): Promise<boolean> =>
    commandOf(other, identity).then((command) => command === undefined || command === 'Sleep')
  // Twice: between two of its statements a thread sleeps, too.
  const look = (): Promise<boolean> => onErrand(lender, over.signal, idle).catch(() => false)
  if (!(await look())) return false
  await pause(lender, LOOK_AGAIN_MS[1] as number, over.signal)
  return !over.signal.aborted && (await look())
}

/** Thread numbers begin anew after a restart, and differ from server to server behind a proxy: the address must fit too. */
async function commandOf(session: Session, { connectionId, threads, peer }: Identity): Promise<string | undefined> {
  const sql = `SELECT COMMAND FROM ${threads} WHERE ID = ? AND HOST = ?`
  const { rows } = await session.query({ sql, values: [Number(connectionId), peer] })
  return rows.length === 0 ? undefined : String(onlyValue(rows[0]))
}

/** Through a session that comes home soon; else through one that is opened for it; else through whichever comes home. */
async function onErrand<T>(lender: Lender, over: AbortSignal, task: (session: Session) => Promise<T>): Promise<T> {
  const slot = await lender.waitFirst(HOME_WITHIN_MS, over).catch((error: unknown) => {
    if (over.aborted || lender.isShut) throw error
    return undefined
  })
  if (slot) return onSlot(lender, slot, task)
  const extra = await lender.openExtra(over)
  if (extra === undefined) return onSlot(lender, await lender.waitFirst(ERRAND_WITHIN_MS, over), task)
  try {
    return await answered(lender, extra.session, task)
  } finally {
    await lender.closeExtra(extra)
  }
}

async function onSlot<T>(lender: Lender, slot: Slot, task: (session: Session) => Promise<T>): Promise<T> {
  const session = slot.session as Session
  try {
    return await answered(lender, session, task)
  } finally {
    lender.giveBack(slot, 'clean', session.alive)
  }
}

async function answered<T>(lender: Lender, session: Session, task: (session: Session) => Promise<T>): Promise<T> {
  const answer = <R>(ms: number, question: () => Promise<R>): Promise<R> =>
    within(lender.clock, ms, undefined, question, () => new Error('no answer'))
  try {
    // Where one peer is silent others may be, too: that is found out sooner than a KILL may take.
    await answer(PING_WITHIN_MS, () => session.ping())
    return await answer(ANSWER_WITHIN_MS, () => task(session))
  } catch (error) {
    // Whatever is under way on it, nobody must get it.
    session.destroy()
    throw error
  }
}

function pause(lender: Lender, ms: number, over: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      timer.cancel()
      over.removeEventListener('abort', done)
      resolve()
    }
    const timer = lender.clock.after(ms, done)
    over.addEventListener('abort', done, { once: true })
  })
}

function noop(): void {}
