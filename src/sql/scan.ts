import type { Flavour } from '../driver.js'
import { Form, hashOf } from './form.js'
import { isBuiltIn } from './functions.js'
import { whyNotCall, whyNotHint, whyNotName, whyNotVariable, whyNotWord } from './lane.js'
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
  /** Something in the text that no lane may run, even if it is a read that leaves nothing behind. */
  readonly lane: string | undefined
  readonly form: number
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

const TOO_ODD = opaque('', 'unreadable text')

/**
 * Reads a text once from left to right, as the server's own lexer would. `undefined` when no server would run any of
 * it: an open quote, an unmatched parenthesis, a stray backslash.
 */
export function scan(sql: string, escaping: Escaping, flavour: Flavour | undefined): Scan | undefined {
  let verb = ''
  let verbDepth = 0
  let words: string[] | undefined
  let trace: string | undefined
  let lane: string | undefined
  const form = new Form()
  let depth = 0
  let over = false // a semicolon was seen
  let last = OPERATOR
  // the latest name: where its last part is, if that is a word, and what stands before the whole of it
  let start = 0
  let end = 0
  let hash = 0 // of the last part, if that is a word
  let joined = false // the dot before it stands behind another part of it, or a number
  let qualified = false
  let before = OPERATOR
  let beforeStart = 0
  let beforeEnd = 0
  let beforeHash = 0

  for (let at = 0; at < sql.length;) {
    let kind = kindOf(sql.charCodeAt(at))
    if (kind === Kind.space) {
      at++
      continue
    }
    if (kind === Kind.comment) {
      const after = endOfComment(sql, at)
      if (after === EXECUTABLE) return opaque(verb, 'executable comment')
      if (after === ODD || after === UNCLOSED) return TOO_ODD
      if (after > at) {
        if (sql.startsWith('/*+', at)) lane ??= whyNotHint(sql.slice(at, after))
        at = after
        continue
      }
      kind = Kind.operator
    }
    if (over && kind !== Kind.semicolon) return opaque(verb, 'several statements')
    const nameToCome = kind === Kind.placeholder && sql[at + 1] === '?' // the drivers put a quoted name there

    if (kind === Kind.word || kind === Kind.nameQuote || nameToCome) {
      const isDigits = kind === Kind.word && isDigit(sql.charCodeAt(at))
      const afterDigits = last === DOT && end > start && isDigit(sql.charCodeAt(start))
      const isPart = last === DOT && joined
      if (last === DOT) {
        if (afterDigits && !isDigits) return TOO_ODD // `1.into` is `1. INTO` to the server
        qualified = true
      } else {
        qualified = false
        before = last
        beforeStart = start
        beforeEnd = end
        beforeHash = last === WORD ? hash : 0
      }
      start = at
      hash = 0
      if (kind === Kind.word) {
        at = end = endOfWord(sql, at)
        if (at === ODD) return TOO_ODD
        last = WORD
        if (isDigits) {
          if (!isPart || !afterDigits) form.literal()
        } else {
          hash = hashOf(sql, start, end)
          form.word(hash)
          lane ??= isPart ? whyNotName(hash) : whyNotWord(hash, beforeHash)
        }
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
        const name = hashOf(sql, start + 1, at - 1)
        lane ??= whyNotName(name)
        if (sql[start] !== '"' || isPart) form.word(name)
        else form.literal() // as a rule
        end = start
        last = QUOTED
        words?.push('"')
      }
      continue
    }

    if (verb === '' && kind !== Kind.open) return TOO_ODD
    switch (kind) {
      case Kind.open:
        form.open()
        if (last === WORD) lane ??= whyNotCall(hash)
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
        form.close()
        last = OPERAND
        break
      case Kind.stringQuote:
        at = endOfQuoted(sql, at, escaping !== '')
        if (at === UNCLOSED) return undefined
        form.literal()
        last = OPERAND
        continue
      case Kind.placeholder:
        form.literal()
        last = OPERATOR
        break
      case Kind.dot:
        joined = last === WORD || last === QUOTED
        if (!isDigit(sql.charCodeAt(at + 1)) && !(joined && isDigit(sql.charCodeAt(start))))
          form.operator(sql.charCodeAt(at))
        last = DOT
        break
      case Kind.at:
        // @@name is a system variable: only read, unless the verb is SET
        form.operator(sql.charCodeAt(at))
        if (sql[at + 1] === '@') {
          lane ??= whyNotVariable(sql, at)
          at++
        } else trace ??= 'user variable'
        last = OPERATOR
        break
      case Kind.colon:
        if (sql[at + 1] === '=') trace ??= 'user variable'
        form.operator(sql.charCodeAt(at))
        last = OPERATOR
        break
      case Kind.semicolon:
        over = true
        break
      case Kind.backslash:
        if (sql[at + 1] !== 'N' && sql[at + 1] !== 'n') return undefined
        at++ // \N is NULL
        form.literal()
        last = OPERAND
        break
      default:
        form.operator(sql.charCodeAt(at))
        last = OPERATOR
    }
    at++
  }
  return depth === 0 ? { verb, words: words ?? [], trace, opaque: false, lane, form: form.value() } : undefined
}

function lower(sql: string, start: number, end: number): string {
  return sql.slice(start, end).toLowerCase()
}

function opaque(verb: string, trace: string): Scan {
  return { verb, words: [], trace, opaque: true, lane: trace, form: 0 }
}
