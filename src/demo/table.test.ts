import { describe, expect, test } from 'vitest'
import { table, wrap, type Look } from './table.js'

const plain: Look = { width: 40, heading: (text) => text, mark: (mark) => mark, rule: (text) => text }

describe('wrapping', () => {
  test('breaks between words, and keeps what fits in one line', () => {
    expect(wrap('10 of 10 answered', 17)).toEqual(['10 of 10 answered'])
    expect(wrap('10 of 10 answered', 16)).toEqual(['10 of 10', 'answered'])
  })

  test('breaks a word only when it is longer than a line', () => {
    expect(wrap('failed: PROTOCOL_CONNECTION_LOST at once', 12)).toEqual([
      'failed:',
      'PROTOCOL_CON',
      'NECTION_LOST',
      'at once',
    ])
  })

  test('makes one empty line of nothing', () => {
    expect(wrap('', 10)).toEqual([''])
  })
})

describe('a table', () => {
  const lines = [
    'Heading: one',
    [
      { text: 'KILL during a read' },
      { mark: '✗', text: '10 of 10 failed: ECONNRESET' },
      { mark: '✓', text: 'answered' },
    ],
  ] as const

  test('aligns its columns, indents what is wrapped below a mark, and ends no line in blanks', () => {
    expect(table(['what', 'theirs', 'ours'], [12, 14, 10], lines, plain).split('\n')).toEqual([
      'what          theirs          ours',
      '─'.repeat(40),
      '',
      'Heading: one',
      'KILL during   ✗ 10 of 10      ✓ answered',
      'a read          failed:',
      '                ECONNRESET',
      '─'.repeat(40),
    ])
  })

  test('is never wider than it may be', () => {
    const long = [[{ text: 'x'.repeat(99) }, { mark: '!', text: 'y '.repeat(99) }, { text: 'z'.repeat(99) }]] as const
    for (const width of [60, 77, 100]) {
      const text = table(['a', 'b', 'c'], [27, 33, 36], long, { ...plain, width })
      expect(Math.max(...text.split('\n').map((line) => line.length))).toBe(width)
    }
  })

  test('paints without moving anything', () => {
    const painted: Look = { ...plain, mark: (mark) => `<${mark}>`, heading: (text) => `[${text}]` }
    const text = table(['what', 'theirs', 'ours'], [12, 14, 10], lines, painted)
    expect(text).toContain('[Heading: one]')
    expect(text.replace(/[<>[\]]/g, '')).toBe(table(['what', 'theirs', 'ours'], [12, 14, 10], lines, plain))
  })
})
