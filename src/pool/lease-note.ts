import type { Slot } from './slot.js'

/** Where something was called, as a stack that is put into words only when it is read. */
export interface Site {
  readonly stack?: string
}

/** How a stream of the pool gets on. */
interface Reading {
  /** Rows that were taken. */
  rows: number
  /** The reader waits for the server. */
  waits: boolean
  /** The last sweep that saw it at work, and how many rows had been taken then. */
  workedAt: number
  seen: number
}

/** What is known of a lease, without keeping the lease itself from being garbage-collected. */
export interface LeaseNote {
  readonly slot: Slot
  readonly takenAt: number
  /** Where it was taken; its stack is put into words only when somebody asks. */
  readonly site: Site | undefined
  lastSql: string | undefined
  /** A transaction is open, as far as the statements tell. */
  inTransaction: boolean
  /** A statement is running, or rows are being read. */
  busy: boolean
  /** A ping that keeps the session alive is under way: the next statement waits for it. */
  ping: Promise<void> | undefined
  /** Set for a stream of the pool. */
  reading: Reading | undefined
  reported: boolean
  /** It was taken back from its holder. */
  abandoned: boolean
}

// Capturing a stack takes 2 us in an empty loop and 10 to 17 us in real use, more than all the rest of lending. A bucket of
// tokens bounds that to 1 to 2 % of a core, and marks every lease of a program that takes fewer than 1000 a second.
const TOKENS_PER_MS = 1
const MOST_TOKENS = 200
const FRAMES = 8

let tokens = MOST_TOKENS
let filledAt = 0

export function noteLease(slot: Slot, site: Site | undefined): LeaseNote {
  return {
    slot,
    takenAt: slot.leasedAt,
    site,
    lastSql: undefined,
    inTransaction: false,
    busy: false,
    ping: undefined,
    reading: undefined,
    reported: false,
    abandoned: false,
  }
}

/** Called where the caller's own frame is still on the stack; undefined when it is called too often. */
export function captureSite(now: number): Site | undefined {
  tokens = Math.min(MOST_TOKENS, tokens + Math.max(0, now - filledAt) * TOKENS_PER_MS)
  filledAt = now
  if (tokens < 1) return undefined
  tokens--
  const limit = Error.stackTraceLimit
  Error.stackTraceLimit = FRAMES
  const site: Site = {}
  Error.captureStackTrace(site, captureSite)
  Error.stackTraceLimit = limit
  return site
}

const OWN_FILES = new URL('..', import.meta.url).href
const OWN_FOLDER = decodeURIComponent(new URL(OWN_FILES).pathname)

const LONGEST_SQL = 200
/** What may stay as it is (names), what is left out (comments), and what may be a secret (literals). */
const NAMES_COMMENTS_LITERALS =
  /(`(?:[^`]|``)*`?|[a-z_$@][\w$]*)|\/\*.*?(?:\*\/|$)|(?:--(?=\s)|#)[^\n]*|'(?:[^'\\]|\\.|'')*'?|"(?:[^"\\]|\\.|"")*"?|\b0x[\da-f]+|\.?\d[\w.]*/gis

/** For people to recognize a statement by: shortened, and without its literals. */
export function sqlForShow(sql: string): string {
  // Only what may be shown is looked at: an expression with a loop has its limits on a text of many megabytes.
  const bare = sql
    .slice(0, 10 * LONGEST_SQL)
    .replace(
      NAMES_COMMENTS_LITERALS,
      (found, name: string | undefined) => name ?? (/^(?:\/\*|--|#)/.test(found) ? ' ' : '?'),
    )
    .replace(/\s+/g, ' ')
    .trim()
  return bare.length > LONGEST_SQL ? `${bare.slice(0, LONGEST_SQL)}...` : bare
}

/** The first place outside Holdfast, e.g. `/app/report.ts:41:12`. */
export function siteOf(note: LeaseNote): string {
  const frames = note.site?.stack?.split('\n').slice(1) ?? []
  const outside = frames.find((frame) => !isOwn(frame) && !frame.includes('(node:') && !frame.includes('<anonymous>'))
  if (outside === undefined) return 'an unknown place'
  const place = /\(([^()]*)\)\s*$/.exec(outside)?.[1] ?? outside.trim().replace(/^at (?:async )?/, '')
  return place.replace(/^file:\/\//, '')
}

function isOwn(frame: string): boolean {
  return (frame.includes(OWN_FILES) || frame.includes(OWN_FOLDER)) && !frame.includes('.test.')
}
