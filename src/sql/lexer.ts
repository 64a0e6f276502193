/** What kind of token a character begins. */
export const Kind = {
  operator: 0,
  space: 1,
  word: 2,
  nameQuote: 3,
  stringQuote: 4,
  comment: 5, // or an operator
  open: 6,
  close: 7,
  at: 8,
  dot: 9,
  placeholder: 10,
  semicolon: 11,
  colon: 12,
  backslash: 13,
} as const

const KINDS = new Uint8Array(128)
for (const [kind, characters] of [
  [Kind.space, ' \t\n\v\f\r'],
  [Kind.word, '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_$'],
  [Kind.nameQuote, '`"'],
  [Kind.stringQuote, "'"],
  [Kind.comment, '#-/'],
  [Kind.open, '('],
  [Kind.close, ')'],
  [Kind.at, '@'],
  [Kind.dot, '.'],
  [Kind.placeholder, '?'],
  [Kind.semicolon, ';'],
  [Kind.colon, ':'],
  [Kind.backslash, '\\'],
] as const) {
  for (const character of characters) KINDS[character.charCodeAt(0)] = kind
}

export function kindOf(code: number): number {
  return code < 128 ? KINDS[code]! : Kind.word
}

// what the functions below answer in place of an end
export const UNCLOSED = -1
export const EXECUTABLE = -2
/** A text that servers and their settings may read in different ways. */
export const ODD = -3

export function endOfWord(sql: string, from: number): number {
  if (sql[from] === '$') return ODD // MySQL 9 has $$quoted strings$$
  let at = from
  for (; at < sql.length; at++) {
    const code = sql.charCodeAt(at)
    if (code < 0x80) {
      if (KINDS[code] !== Kind.word) break
    } else if (code <= 0xa0 || code === 0x212a) {
      return ODD // 0xa0 is a space in latin1; the Kelvin sign is the one character whose lower case is an ASCII letter
    }
  }
  return isDigit(sql.charCodeAt(from)) ? endOfNumber(sql, from, at) : at
}

/** The server ends a number where it can be one no longer: `1e5into` is `1e5 INTO`. Here that is no number, and odd. */
function endOfNumber(sql: string, from: number, end: number): number {
  if (end - from === 1) return end
  const word = sql.slice(from, end)
  if (!NUMBER.test(word)) return ODD
  if (!/[-+]/.test(sql[end] ?? '') || !/^\d+e$/i.test(word)) return end
  let at = end + 1 // 1e-5
  while (isDigit(sql.charCodeAt(at))) at++
  if (at === end + 1) return end
  return at < sql.length && kindOf(sql.charCodeAt(at)) === Kind.word ? ODD : at
}

const NUMBER = /^(\d+(e\d*)?|0x[\da-f]+|0b[01]+)$/i

/** A quote that is doubled stands for itself; so does one after a backslash that `escapes`. */
export function endOfQuoted(sql: string, from: number, escapes: boolean): number {
  const quote = sql[from]!
  for (let at = sql.indexOf(quote, from + 1); at !== -1; at = sql.indexOf(quote, at + 1)) {
    if (escapes && isEscaped(sql, from, at)) continue
    if (sql[at + 1] !== quote) return at + 1
    at++
  }
  return UNCLOSED
}

/** Where the comment ends that may start at `from`; `from` when it is none. Comments do not nest. */
export function endOfComment(sql: string, from: number): number {
  if (sql[from] === '#' || isDashComment(sql, from)) {
    const newline = sql.indexOf('\n', from)
    return newline === -1 ? sql.length : newline + 1
  }
  if (!sql.startsWith('/*', from)) return from
  if (sql.startsWith('!', from + 2) || sql.startsWith('M!', from + 2)) return EXECUTABLE
  const end = sql.indexOf('*/', from + 2)
  if (end === -1) return UNCLOSED
  // an optimizer hint may hold quoted names, and those what looks like its end
  if (sql[from + 2] === '+' && /['"`]/.test(sql.slice(from, end))) return ODD
  return end + 2
}

export function isDigit(code: number): boolean {
  return code >= 0x30 && code <= 0x39
}

function isEscaped(sql: string, from: number, quoteAt: number): boolean {
  let at = quoteAt - 1
  while (at > from && sql[at] === '\\') at--
  return (quoteAt - at) % 2 === 0
}

/** Two dashes begin a comment only before a space or a control character, or at the end. */
function isDashComment(sql: string, from: number): boolean {
  if (!sql.startsWith('--', from)) return false
  const next = sql.charCodeAt(from + 2)
  return !(next > 0x20 && next !== 0x7f)
}
