import type { Flavour } from '../driver.js'
import { scan, type Escaping } from './scan.js'
import { ruleOf, type TransactionEffect } from './verbs.js'

export type { TransactionEffect } from './verbs.js'

/**
 * What a statement's text says about what running it can do to the session. It is a proof by text: what the text calls by a name
 * that may be anything (a stored function) counts as doubt. What it cannot see is what tables bring along: a trigger, or a view's
 * stored function, that sets a user variable.
 */
export interface Shape {
  /** In lower case; of `WITH ... SELECT` the `select`. */
  readonly verb: string
  /** Why the next borrower of the session may see a difference; `undefined` when he provably can not. */
  readonly leavesState: string | undefined
  readonly transaction: TransactionEffect
}

/** Never throws, and takes time linear in the text. To say the flavour spares some doubt: see {@link isBuiltIn}. */
export function shapeOf(sql: string, flavour?: Flavour): Shape {
  if (sql.length > CACHED_LENGTH) return examine(sql, flavour)
  const cache = CACHES[flavour ?? 'either']
  const known = cache.get(sql)
  if (known) return known
  const shape = examine(sql, flavour)
  cache.set(sql, shape)
  return shape
}

const CACHED_LENGTH = 2048
const CACHED_TEXTS = 1000

/** Remembers what was asked for lately: a generation that is full becomes the old one, and what is found there moves up. */
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

const UNREADABLE: Shape = { verb: '', leavesState: 'unreadable text', transaction: 'unknown' }

/** A text that can be read in several ways, depending on the session's sql_mode, gets the worst of what they say. */
function examine(sql: string, flavour: Flavour | undefined): Shape {
  if (sql.includes('\0')) return UNREADABLE // where the server's lexer may stop
  let worst: Shape | undefined
  for (const escaping of readings(sql)) {
    const shape = examineAs(sql, escaping, flavour)
    if (!shape) continue // refused as a whole
    worst = worst
      ? {
          verb: worst.verb,
          leavesState: worst.leavesState ?? shape.leavesState,
          transaction: worst.transaction === shape.transaction ? shape.transaction : 'unknown',
        }
      : shape
  }
  return worst ?? UNREADABLE
}

function readings(sql: string): readonly Escaping[] {
  return [`'"`]
  return sql.includes("\\'") ? [`'"`, ''] : [`'"`]
}

function examineAs(sql: string, escaping: Escaping, flavour: Flavour | undefined): Shape | undefined {
  const found = scan(sql, escaping, flavour)
  if (!found) return undefined
  if (found.opaque) return { verb: found.verb, leavesState: found.trace, transaction: 'unknown' }
  const rule = ruleOf(found.verb)
  const { leaves, transaction } = typeof rule === 'function' ? rule(found.words) : rule
  return { verb: found.verb, leavesState: leaves ?? found.trace, transaction }
}
