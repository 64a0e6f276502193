import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { formOf, shapeOf } from './shape.js'

const form = (sql: string): number => shapeOf(sql).form

describe('statements that differ in literals, space and comments only are of one form', () => {
  test.each([
    ['SELECT * FROM t WHERE id = ?', 'SELECT * FROM t WHERE id = 5', "select  * from t\nwhere id='x'"],
    ['SELECT a FROM t WHERE b IN (?)', 'SELECT a FROM t WHERE b IN (1, 2,3)', "SELECT a FROM t WHERE b IN('x' , ?)"],
    ['SELECT a FROM t WHERE b IN (?)', 'SELECT a FROM t WHERE b IN (-1, 2, +3)', 'SELECT a FROM t WHERE b IN (1.5)'],
    [
      'SELECT 1 FROM t WHERE (a, b) IN ((?, ?))',
      'SELECT 1 FROM t WHERE (a, b) IN ((1, 2), (3, 4))',
      "SELECT 1 FROM t WHERE (a, b) IN (('x', -1), (?, ?), (5, 6))",
    ],
    ['SELECT 1', 'SELECT 1.5', 'SELECT .5', 'SELECT 1e10', 'SELECT 1.5E-3', 'SELECT 1e+3', 'SELECT 0x40', 'SELECT 0b1'],
    ['SELECT ?', "SELECT 'a'", 'SELECT "a"', "SELECT 'it''s'", 'SELECT \\N', "SELECT 'a\\\\'", "SELECT 'it\\'s'"],
    ['SELECT 1', 'SELECT 1;', '/* x */ SELECT/**/1 -- y', '# z\nSELECT /*+ BKA(t) */ 2'],
    ['SELECT a, b FROM t', 'SELECT `A`, `b` FROM `T`', 'select a,b from t'],
    [
      'INSERT INTO t VALUES (?, ?)',
      'INSERT INTO t VALUES (1, 2), (3, 4)',
      "INSERT INTO t VALUES ('x',?) , (3,4), (5,6)",
    ],
  ])('%s', (first, ...more) => {
    for (const sql of more) expect([sql, form(sql)]).toEqual([sql, form(first)])
  })
})

describe('other statements are of other forms', () => {
  test.each([
    ['SELECT 1', 'SELECT 1, 2'],
    ['SELECT a FROM t', 'SELECT a FROM u'],
    ['SELECT a FROM t', 'SELECT a FROM `u`'],
    ['SELECT a FROM t', 'SELECT a FROM x.t'],
    ['SELECT a FROM x."t"', 'SELECT a FROM x."u"'],
    ['SELECT a FROM t WHERE b = 1', 'SELECT a FROM t WHERE b > 1'],
    ['SELECT a FROM t WHERE b = 1', 'SELECT a FROM t WHERE b = c'],
    ['SELECT a FROM t WHERE b IN (1)', 'SELECT a FROM t WHERE b IN (c)'],
    ['SELECT a FROM t WHERE b IN (1, 2)', 'SELECT a FROM t WHERE b IN (1, c)'],
    ['SELECT a FROM t WHERE b IN (1, 2)', 'SELECT a FROM t WHERE b IN (c, 1)'],
    ['SELECT a, b', 'SELECT b, a'],
    ['SELECT ab', 'SELECT a b'],
    ['SELECT a', 'SELECT @a'],
    ['SELECT a', 'SELECT (a)'],
    ['SELECT f(1), g(2)', 'SELECT f(1)'],
    ['SELECT a FROM t LIMIT 1', 'SELECT a FROM t LIMIT 1, 2'],
    ['SELECT 1 UNION SELECT 2', 'SELECT 1 UNION ALL SELECT 2'],
    ['SELECT a FROM ??', 'SELECT a FROM ?'],
  ])('%s, and %s', (one, other) => {
    expect(form(one)).not.toBe(form(other))
  })

  test('thousands of them', () => {
    const forms = new Set<number>()
    const names = Array.from({ length: 30 }, (_, i) => `n${i.toString(36)}`)
    for (const a of names) for (const b of names) for (const c of names) forms.add(form(`SELECT ${a} FROM ${b}, ${c}`))
    expect(forms.size).toBeGreaterThan(27_000 - 3)
  })

  test('a text that could not be read has none', () => {
    for (const sql of ["SELECT 'open", 'SELECT /*!1 */', 'SELECT 1; SELECT 2', 'x'.repeat(300_000), 'SELECT \0'])
      expect(form(sql)).toBe(0)
  })
})

const word = fc.constantFrom('SELECT', 'FROM', 'a', '`b c`', 't.x', 'f', ',', '(', ')', '=', '-', 'IN', '+', '->>')
const literal = fc.oneof(
  fc.integer().map(String),
  fc.double({ noDefaultInfinity: true, noNaN: true }).map(String),
  fc.string({ maxLength: 8 }).map((text) => `'${text.replaceAll(/[\\\0]/g, '').replaceAll("'", "''")}'`),
  fc.constantFrom('?', '\\N', '0x4f', '""', "'a\\\\'"),
)
const space = fc.constantFrom(' ', '\n', '\t ', ' /* 1 */ ', ' -- x\n', '  ')

test('literals and space change neither the form nor what is shown of it', () => {
  const template = fc.array(fc.oneof(word, word, fc.constant('~')), { maxLength: 15 })
  const changes = fc.array(fc.tuple(literal, space), { minLength: 16, maxLength: 16 })
  fc.assert(
    fc.property(template, changes, (parts, chosen) => {
      const text = (fill: (i: number) => readonly [string, string]): string =>
        ['SELECT', ...parts].map((part, i) => (part === '~' ? fill(i)[0] : part) + fill(i)[1]).join('')
      // a sign before a literal is part of it in lists only
      const [changed, plain] = [text((i) => [chosen[i]![0].replace('-', ''), chosen[i]![1]]), text(() => ['?', ' '])]
      expect([changed, form(changed)]).toEqual([changed, form(plain)])
      if (form(plain) !== 0) expect(formOf(changed)).toBe(formOf(plain))
    }),
    { numRuns: 3000 },
  )
})

test('a list of any length is of one form', () => {
  fc.assert(
    fc.property(fc.array(literal, { minLength: 1, maxLength: 30 }), (values) => {
      const sql = `SELECT a FROM t WHERE b IN (${values.join(', ')}) AND c = ?`
      expect(form(sql)).toBe(form('SELECT a FROM t WHERE b IN (?) AND c = ?'))
      expect(formOf(sql)).toBe('SELECT a FROM t WHERE b IN (?) AND c = ?')
    }),
  )
})

describe('what is shown of a statement has no literals', () => {
  test.each([
    ["SELECT f('x') FROM t WHERE a IN (1, 2)", 'SELECT f(?) FROM t WHERE a IN (?)'],
    [
      'SELECT  a,\n\tb FROM `t` -- secret\nWHERE c = -1.5e-3 /* secret */ + 0x40;',
      'SELECT a, b FROM `t` WHERE c = -? + ?;',
    ],
    [
      "SELECT x'41', b'01', N'a', _utf8mb4'é', DATE'2020-01-01', {d '2020-01-01'}",
      'SELECT x?, b?, N?, _utf8mb4?, DATE?, {d ?}',
    ],
    ['SELECT t.1, .5, 1.5, "a" FROM t', 'SELECT t.?, ?, ?, ? FROM t'],
    ["SET PASSWORD = 'secret'", 'SET PASSWORD = ?'],
    ["CREATE USER bob IDENTIFIED BY 'secret'", 'CREATE USER bob IDENTIFIED BY ?'],
    ['INSERT INTO t VALUES (1, 2), (3, 4)', 'INSERT INTO t VALUES (?)'],
    ["SELECT 'a\\', secret -- '", 'SELECT …'],
    ["SELECT 1, 'open secret", 'SELECT ?, …'],
    ['SELECT 1, "open secret', 'SELECT ?, …'],
    ['SELECT a /* open secret', 'SELECT a …'],
    ["SELECT a /*! , 'secret' */", 'SELECT a …'],
    ['SELECT 1secret', 'SELECT …'],
    ['SELECT $$secret$$', 'SELECT …'],
    ['SELECT \0 secret', 'SELECT …'],
    ['', ''],
  ])('%s', (sql, shown) => {
    expect(formOf(sql)).toBe(shown)
  })

  test('nor is it longer than 200 characters', () => {
    expect(formOf(`SELECT ${'a, '.repeat(100)} b`)).toMatch(/^SELECT (a, )+.{0,3}…$/)
    expect(formOf(`SELECT ${'a, '.repeat(100)} b`)).toHaveLength(200)
    expect(formOf(`SELECT a FROM t WHERE b IN (${'123, '.repeat(5000)}1)`)).toBe('SELECT a FROM t WHERE b IN (?)')
    expect(formOf(`SELECT '${'x'.repeat(100_000)}'`)).toBe('SELECT …')
  })

  const SECRET = 'qzjx'
  const secret = fc.constantFrom(
    `'${SECRET}'`,
    `"${SECRET}"`,
    `'it''s ${SECRET}'`,
    `'it\\'s ${SECRET}'`,
    `"\\"${SECRET}"`,
    `'\\\\', '${SECRET}'`,
    `x'${SECRET}'`,
    `'a' '${SECRET}'`,
    `'${SECRET}`,
    `"${SECRET}`,
    `/* ${SECRET} */`,
    `-- ${SECRET}\n`,
    `'\`', '${SECRET}'`,
    `'\`${SECRET}'`,
    `'-- ' '${SECRET}'`,
    `'C:\\', '${SECRET}'`,
  )
  const noise = fc.constantFrom(
    'SELECT',
    'a',
    ',',
    '(',
    ')',
    '.',
    '1',
    '=',
    ' ',
    '\n',
    '?',
    '\\N',
    "''",
    '""',
    '`b`',
    '@',
  )
  const wild = fc.constantFrom("'", '"', '\\', '`', '/*', '*/', '-- ', '#', "\\'", ';')

  test('whatever the text', () => {
    fc.assert(
      fc.property(fc.array(noise), secret, fc.array(fc.oneof(noise, wild)), (before, what, after) => {
        const sql = `SELECT ${before.join(' ')} ${what} ${after.join('')}`
        expect(formOf(sql)).not.toContain(SECRET)
      }),
      { numRuns: 5000 },
    )
  })

  test('even numbers', () => {
    const number = fc
      .oneof(fc.integer({ min: 0 }), fc.double({ min: 0, noDefaultInfinity: true, noNaN: true }))
      .map(String)
    fc.assert(
      fc.property(fc.array(noise.filter((part) => part !== '1')), number, (before, value) => {
        expect(formOf(`SELECT ${before.join('')} ${value}`)).not.toMatch(/\d/)
      }),
    )
  })

  test('and no text makes it throw', () => {
    fc.assert(fc.property(fc.string({ unit: 'binary' }), (sql) => formOf(sql).length <= 200))
    for (const part of ["'", '(', '?', '(?,', '.', '1.', '-', '/*', '((?),', '`', '\\', 'a ']) {
      const started = performance.now()
      formOf(part.repeat(100_000))
      expect(performance.now() - started, part).toBeLessThan(2_000)
    }
  })
})
