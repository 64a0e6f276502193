import { endOfComment, endOfQuoted, endOfWord, isDigit, Kind, kindOf } from './lexer.js'

/** A word as a number, whatever its case. Others may share it: it serves for what a mistake makes slower, not wrong. */
export function hashOf(text: string, from = 0, to: number = text.length): number {
  let hash = 0x811c9dc5
  for (let at = from; at < to; at++) {
    const code = text.charCodeAt(at)
    hash = Math.imul(hash ^ (code < 0x80 ? code | 0x20 : code), 0x01000193)
  }
  return hash
}

const COMMA = 0x2c
const PLUS = 0x2b
const MINUS = 0x2d
const LITERAL = 0x3f

// where in a list of literals the text is
const Place = {
  outside: 0,
  gap: 1, // a literal may follow
  literal: 2,
  end: 3, // behind the list
  between: 4, // behind the list and a comma: another list may follow
} as const

/**
 * The hash of a text without its literals, token by token. `(1, 2)` counts as much as `(?)`, and `(1, 2), (3, 4)` as
 * much as `(?)`: where more of the same follows, the hash goes back to what it was.
 */
export class Form {
  #hash = 0
  #place: number = Place.outside
  #afterLiteral = 0
  #afterList = 0
  #isNext = false // the list that is open follows another one

  word(hash: number): void {
    this.#add(hash)
    this.#place = Place.outside
  }

  literal(): void {
    if (this.#place === Place.gap || this.#place === Place.literal) {
      this.#hash = this.#afterLiteral
      this.#place = Place.literal
    } else {
      this.word(LITERAL)
    }
  }

  operator(code: number): void {
    this.#add(code)
    if (code === COMMA && this.#place === Place.literal) this.#place = Place.gap
    else if (code === COMMA && this.#place === Place.end) this.#place = Place.between
    else if (this.#place !== Place.gap || (code !== PLUS && code !== MINUS)) this.#place = Place.outside
  }

  open(): void {
    this.#isNext = this.#place === Place.between
    this.#add(0x28)
    this.#afterLiteral = mix(this.#hash, LITERAL)
    this.#place = Place.gap
  }

  close(): void {
    const isList = this.#place === Place.literal
    if (isList && this.#isNext) this.#hash = this.#afterList
    else this.#afterList = this.#add(0x29)
    this.#place = isList ? Place.end : Place.outside
  }

  /** Never 0. */
  value(): number {
    const hash = Math.imul(this.#hash ^ (this.#hash >>> 16), 0x85ebca6b)
    return (hash ^ (hash >>> 13)) | 0 || 1
  }

  #add(hash: number): number {
    return (this.#hash = mix(this.#hash, hash))
  }
}

function mix(hash: number, more: number): number {
  return Math.imul(((hash << 7) | (hash >>> 25)) ^ more, 0x9e3779b1)
}

const SHOWN = 200
const READ = 64 * 1024

/**
 * A statement's text without its literals, for people: `SELECT f(?) FROM t WHERE a IN (?)`. At most 200 characters; it
 * ends where it is doubtful what is a literal. What stands in double quotes may be one.
 */
export function formOf(sql: string): string {
  const text = withoutLiterals(sql.slice(0, READ))
    .replace(/\( ?[-+]?\?(?:[ ,]+[-+]?\?)* ?\)/g, '(?)')
    .replace(/\(\?\)(?: ?, ?\(\?\))+/g, '(?)')
    .trim()
  return text.length <= SHOWN ? text : `${text.slice(0, SHOWN - 1)}…`
}

function withoutLiterals(sql: string): string {
  const parts: string[] = []
  let end = 0
  for (let at = 0; at < sql.length; at = end) {
    const kind = kindOf(sql.charCodeAt(at))
    end = endOf(sql, at, kind)
    if (end < 0) return [...parts, '…'].join('')
    if (kind === Kind.space || (kind === Kind.comment && end > at + 1)) {
      if (parts.at(-1) !== ' ') parts.push(' ')
    } else if (isLiteral(sql, at, kind)) {
      const [before, dot] = parts.slice(-2)
      if (dot === '.' && before === '?') parts.splice(-2) // 1.5
      parts.push('?')
    } else {
      parts.push(sql.slice(at, end))
    }
  }
  return parts.join('').replace(/(?<![\w`$\x80-\uffff])\.\?/g, '?') // .5
}

function isLiteral(sql: string, at: number, kind: number): boolean {
  if (kind === Kind.word) return isDigit(sql.charCodeAt(at))
  return kind === Kind.stringQuote || kind === Kind.backslash || sql[at] === '"'
}

/** Negative where the text is odd, or its end depends on the sql_mode. */
function endOf(sql: string, at: number, kind: number): number {
  switch (kind) {
    case Kind.word:
      return endOfWord(sql, at)
    case Kind.nameQuote:
    case Kind.stringQuote: {
      const end = endOfQuoted(sql, at, false)
      return sql[at] === '`' || end === endOfQuoted(sql, at, true) ? end : -1
    }
    case Kind.comment:
      return endOfComment(sql, at) === at ? at + 1 : endOfComment(sql, at)
    case Kind.backslash:
      return /^\\n/i.test(sql.slice(at, at + 2)) ? at + 2 : -1
    default:
      return sql[at] === '\0' ? -1 : at + 1
  }
}
