import type { Flavour } from '../driver.js'
import { scan, type Escaping } from './scan.js'
import { ruleOf, type TransactionEffect } from './verbs.js'

/**
 * What a statement's text says about what running it can do to the session. Doubt is never resolved in the session's
 * favour. Two things are not in the text, though: what tables bring along (a trigger, or a function inside a view, that
 * sets a user variable or takes a lock), and values that are SQL themselves, such as mysql2's `raw()`. A `?` is taken
 * for a literal, and `??` for a quoted name.
 */
export interface Shape {
  /** In lower case; of `WITH ... SELECT` the `select`. */
  readonly verb: string
  /** Why the next borrower of the session may see a difference; `undefined` when he provably can not. */
  readonly leavesState: string | undefined
  readonly transaction: TransactionEffect
  /**
   * Why it needs a session of its own; `undefined` when it may run on a lane: a non-locking read that neither waits, nor
   * changes the session, nor asks about it, and whose answer is the same in a session that is READ ONLY.
   */
  readonly lane: string | undefined
  /** A hash of the text without its literals; 0 when it could not be read. Statements of one form mostly cost the same. */
  readonly form: number
}

export { formOf } from './form.js'

/** Never throws, and takes time linear in the text. To say the flavour spares some doubt: see {@link isBuiltIn}. */
export function shapeOf(sql: string, flavour?: Flavour): Shape {
  if (sql.length > SCANNED_LENGTH) return LONG
  if (sql.length > CACHED_LENGTH) return lately.of(sql, flavour)
  const cache = CACHES[flavour ?? 'either']
  const known = cache.get(sql)
  if (known) return known
  const shape = examine(sql, flavour)
  cache.set(sql, shape)
  return shape
}

const CACHED_LENGTH = 2048
// Scanning takes some 30 ns a character: a longer text would hold the event loop up for longer than a reset costs.
const SCANNED_LENGTH = 256 * 1024
const CACHED_TEXTS = 1000

/** What was asked for lately: a generation that is full becomes the old one, and what is found there moves up. */
class Recent {
  #young = new Map<string, Shape>()
  #old = new Map<string, Shape>()

  get(sql: string): Shape | undefined {
    const young = this.#young.get(sql)
    if (young) return young
    const old = this.#old.get(sql)
    if (old) this.set(sql, old)
    return old
  }

  set(sql: string, shape: Shape): void {
    if (this.#young.size >= CACHED_TEXTS / 2) {
      this.#old = this.#young
      this.#young = new Map()
    }
    this.#young.set(sql, shape)
  }
}

const CACHES = { mariadb: new Recent(), mysql: new Recent(), either: new Recent() }

const LONG = unread('long text')

/** A long text is asked about several times while it is run, and hardly ever again. */
const lately = {
  sql: '',
  flavour: undefined as Flavour | undefined,
  shape: LONG,
  of(sql: string, flavour: Flavour | undefined): Shape {
    if (sql !== this.sql || flavour !== this.flavour) {
      this.shape = examine(sql, flavour)
      this.sql = sql
      this.flavour = flavour
    }
    return this.shape
  },
}

const UNREADABLE = unread('unreadable text')

function unread(why: string): Shape {
  return { verb: '', leavesState: why, transaction: 'unknown', lane: why, form: 0 }
}

/** A text that can be read in several ways, depending on the session's sql_mode, gets the worst of what they say. */
function examine(sql: string, flavour: Flavour | undefined): Shape {
  if (sql.includes('\0')) return UNREADABLE // where the server's lexer may stop
  const shapes = readings(sql).map((escaping) => examineAs(sql, escaping, flavour))
  // a reading by which the server would refuse the text does no harm
  return shapes.filter((shape) => shape !== undefined).reduce(worse, undefined) ?? UNREADABLE
}

function worse(one: Shape | undefined, other: Shape): Shape {
  if (!one) return other
  const transaction = one.transaction === other.transaction ? one.transaction : 'unknown'
  const leavesState = one.leavesState ?? other.leavesState
  return { verb: one.verb, leavesState, transaction, lane: leavesState ?? one.lane ?? other.lane, form: one.form }
}

function readings(sql: string): readonly Escaping[] {
  if (sql.includes('\\"')) return [`'"`, `'`, '']
  return sql.includes("\\'") ? [`'"`, ''] : [`'"`]
}

function examineAs(sql: string, escaping: Escaping, flavour: Flavour | undefined): Shape | undefined {
  const found = scan(sql, escaping, flavour)
  if (!found) return undefined
  const { verb, trace, form } = found
  if (found.opaque) return { verb, leavesState: trace, transaction: 'unknown', lane: found.lane, form }
  const rule = ruleOf(verb)
  const verdict = typeof rule === 'function' ? rule(found.words) : rule
  const leavesState = verdict.leaves ?? trace
  return {
    verb,
    leavesState,
    transaction: verdict.transaction,
    lane: leavesState ?? verdict.lane ?? found.lane,
    form,
  }
}
