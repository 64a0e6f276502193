import type { Flavour } from '../driver.js'
import { isBuiltIn } from './functions.js'
import { endOfComment, endOfQuoted, endOfWord, EXECUTABLE, isDigit, Kind, kindOf, ODD, UNCLOSED } from './lexer.js'
import { ruleOf } from './verbs.js'

/** What one pass over a statement's text found. */
export interface Scan {
  readonly verb: string
  /** The words after the verb, where its rule asks for them. */
  readonly words: readonly string[]
  /** Something in the text that may leave state behind, whatever the verb. */
  readonly trace: string | undefined
  /** The text is, or may be, more than this one statement. */
  readonly opaque: boolean
}

/**
 * How the server reads a text is a matter of its sql_mode: these are the quotes in which a backslash escapes the next
 * character. By default both; with ANSI_QUOTES a double quote delimits names, which know no escapes; with
 * NO_BACKSLASH_ESCAPES none.
 */
export type Escaping = `'"` | `'` | ''

// what stands directly before a token
const OPERATOR = 0
const OPERAND = 1 // a literal or a closing parenthesis; a placeholder is none, its value may be an empty list
const WORD = 2
const QUOTED = 3 // a name, or a double-quoted string
const DOT = 4

/** Reserved words that the name of a table, an index or an alias may follow, but never a call. */
const NAMING: ReadonlySet<string> = new Set(
  'into table exists as with recursive index key references insert replace ignore join'.split(' '),
)

const AFTER_WITH: ReadonlySet<string> = new Set('select insert update delete replace table values'.split(' '))

const TOO_ODD: Scan = { verb: '', words: [], trace: 'unreadable text', opaque: true }

/**
 * Reads a text once from left to right, as the server's own lexer would. `undefined` when no server would run any of
 * it: an open quote, an unmatched parenthesis, a stray backslash.
 */
export function scan(sql: string, escaping: Escaping, flavour: Flavour | undefined): Scan | undefined {
  let verb = ''
  let verbDepth = 0
  let words: string[] | undefined
  let trace: string | undefined
  let depth = 0
  let over = false // a semicolon was seen
  let last = OPERATOR
  // the latest name: where its last part is, if that is a word, and what stands before the whole of it
  let start = 0
  let end = 0
  let qualified = false
  let before = OPERATOR
  let beforeStart = 0
  let beforeEnd = 0

  for (let at = 0; at < sql.length;) {
    let kind = kindOf(sql.charCodeAt(at))
    if (kind === Kind.space) {
      at++
      continue
    }
    if (kind === Kind.comment) {
      const after = endOfComment(sql, at)
      if (after === EXECUTABLE) return { verb, words: [], trace: 'executable comment', opaque: true }
      if (after === ODD || after === UNCLOSED) return TOO_ODD
      if (after > at) {
        at = after
        continue
      }
      kind = Kind.operator
    }
    if (over && kind !== Kind.semicolon) return { verb, words: [], trace: 'several statements', opaque: true }
    const nameToCome = kind === Kind.placeholder && sql[at + 1] === '?' // the drivers put a quoted name there

    if (kind === Kind.word || kind === Kind.nameQuote || nameToCome) {
      if (last === DOT) {
        // `1.into` is `1. INTO` to the server
        if (end > start && isDigit(sql.charCodeAt(start)) && !isDigit(sql.charCodeAt(at))) return TOO_ODD
        qualified = true
      } else {
        qualified = false
        before = last
        beforeStart = start
        beforeEnd = end
      }
      start = at
      if (kind === Kind.word) {
        at = end = endOfWord(sql, at)
        if (at === ODD) return TOO_ODD
        last = WORD
        if (words) words.push(lower(sql, start, end))
        else if (verb === '' || (verb === 'with' && depth === verbDepth)) {
          const word = lower(sql, start, end)
          if (verb !== '' && !AFTER_WITH.has(word)) continue
          verb = word
          verbDepth = depth
          if (typeof ruleOf(verb) === 'function') words = []
        }
      } else {
        if (verb === '') return TOO_ODD
        at = nameToCome ? at + 2 : endOfQuoted(sql, at, sql[at] === '"' && escaping === `'"`)
        if (at === UNCLOSED) return undefined
        end = start
        last = QUOTED
        words?.push('"')
      }
      continue
    }

    if (verb === '' && kind !== Kind.open) return TOO_ODD
    switch (kind) {
      case Kind.open:
        if ((last === WORD || last === QUOTED) && trace === undefined) {
          const harmless =
            before === OPERAND || // no call can follow directly
            before === QUOTED ||
            (before === WORD && NAMING.has(lower(sql, beforeStart, beforeEnd))) ||
            (verb === 'with' && depth === verbDepth) || // WITH a (x) AS (...), b (y) AS (...)
            (last === WORD && !qualified && isBuiltIn(lower(sql, start, end), at > end, flavour))
          if (!harmless) trace = /lock/i.test(sql.slice(start, end)) ? 'user lock' : 'function that is not built in'
        }
        depth++
        last = OPERATOR
        break
      case Kind.close:
        if (--depth < 0) return undefined
        last = OPERAND
        break
      case Kind.stringQuote:
        at = endOfQuoted(sql, at, escaping !== '')
        if (at === UNCLOSED) return undefined
        last = OPERAND
        continue
      case Kind.dot:
        last = DOT
        break
      case Kind.at:
        // @@name is a system variable: only read, unless the verb is SET
        if (sql[at + 1] === '@') at++
        else trace ??= 'user variable'
        last = OPERATOR
        break
      case Kind.colon:
        if (sql[at + 1] === '=') trace ??= 'user variable'
        last = OPERATOR
        break
      case Kind.semicolon:
        over = true
        break
      case Kind.backslash:
        if (sql[at + 1] !== 'N' && sql[at + 1] !== 'n') return undefined
        at++ // \N is NULL
        last = OPERAND
        break
      default:
        last = OPERATOR
    }
    at++
  }
  return depth === 0 ? { verb, words: words ?? [], trace, opaque: false } : undefined
}

function lower(sql: string, start: number, end: number): string {
  return sql.slice(start, end).toLowerCase()
}
