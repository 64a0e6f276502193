import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Flavour } from '../driver.js'
import { shapeOf, type Shape } from './shape.js'

const clean = (sql: string): boolean => shapeOf(sql).leavesState === undefined
const reason = (sql: string): string | undefined => shapeOf(sql).leavesState
const effect = (sql: string): string => shapeOf(sql).transaction

describe('an everyday statement leaves nothing behind', () => {
  test.each([
    'SELECT 1',
    'select id, name from t where a in (1, 2) and b = ? order by c limit 10',
    'SELECT COUNT(*), max(a), GROUP_CONCAT(DISTINCT a ORDER BY b SEPARATOR ",") FROM t GROUP BY c HAVING COUNT(*) > 1',
    'SELECT CAST(a AS CHAR(10)), CONVERT(a, DECIMAL(10, 2)), CONVERT(b USING utf8mb4) FROM t',
    'SELECT a + INTERVAL (1 + 1) DAY, DATE_ADD(a, INTERVAL 1 DAY), EXTRACT(DAY FROM a) FROM t',
    'SELECT IF(a, b, c), IFNULL(a, 1), CASE WHEN (a) THEN (b) ELSE (c) END, LEFT(a, 1), REPLACE(a, b, c) FROM t',
    'SELECT ROW_NUMBER() OVER (PARTITION BY a ORDER BY b), SUM(a) OVER w FROM t WINDOW w AS (PARTITION BY b)',
    "SELECT * FROM t USE INDEX (i) FORCE INDEX FOR JOIN (j) WHERE MATCH (a) AGAINST ('x' IN BOOLEAN MODE)",
    'SELECT * FROM t PARTITION (p0) JOIN u USING (id) LEFT JOIN (SELECT 1) AS v ON (v.a = t.a)',
    'SELECT * FROM (SELECT 1) AS d (a) WHERE EXISTS (SELECT 1) AND NOT (a = ANY (SELECT 2)) OR (a, 1) = (1, 1)',
    'SELECT id FROM t WHERE a = 1 FOR UPDATE',
    '(SELECT 1) UNION ALL (SELECT 2) EXCEPT (SELECT 3) INTERSECT (SELECT 4)',
    'WITH x AS (SELECT 1) SELECT * FROM x',
    'WITH RECURSIVE x(a) AS (SELECT 1 UNION SELECT a + 1 FROM x), y (b, c) AS (SELECT 1, 2) SELECT * FROM x, y',
    'SELECT @@autocommit, @@session.sql_mode, @@global.read_only, @@`version`',
    'SELECT SQL_CALC_FOUND_ROWS * FROM t LIMIT 1',
    'SELECT FOUND_ROWS(), LAST_INSERT_ID(), ROW_COUNT()',
    'UPDATE seq SET id = LAST_INSERT_ID(id + 1)',
    'INSERT INTO t(a,b) VALUES (1,2)',
    'insert into t (a, b) values (?, ?), (?, ?) on duplicate key update a = values(a), b = now()',
    'INSERT INTO `t` (`a`) VALUES (?)',
    'INSERT INTO `shop`.`t`(`a`) VALUES (DEFAULT), (DEFAULT(a))',
    'INSERT INTO shop . t (a) SELECT b FROM u',
    'INSERT INTO "t" ("a") VALUES (1)',
    'INSERT INTO ?? (??) VALUES (?)',
    'INSERT INTO t SET ?',
    'INSERT IGNORE INTO t (a) VALUE (1) RETURNING (a)',
    'INSERT t (a) VALUES (1)',
    'INSERT INTO t (a) VALUES (1) AS new (n) ON DUPLICATE KEY UPDATE a = new.n',
    'INSERT INTO t PARTITION (p0) (a) TABLE u',
    'REPLACE INTO t (a) VALUES (1)',
    'UPDATE t SET a = 1, b = COALESCE(b, 0) WHERE c BETWEEN (1) AND (2)',
    'DELETE t FROM t JOIN u ON (t.a = u.a) WHERE t.b LIKE ("x")',
    'VALUES ROW(1, 2), ROW(3, 4)',
    'TABLE t',
    'DO SLEEP(1)',
    'SHOW TABLES LIKE "a%"',
    'SHOW WARNINGS',
    'EXPLAIN FORMAT=JSON SELECT 1',
    'DESCRIBE t',
    'CREATE TABLE IF NOT EXISTS t (a INT(11) NOT NULL, b VARCHAR(10), c ENUM("x"), PRIMARY KEY (a), KEY k (b), FOREIGN KEY (c) REFERENCES u (c))',
    'ALTER TABLE t ADD INDEX i (a), ADD COLUMN (z DECIMAL(1, 1))',
    'DROP TABLE IF EXISTS t',
    'TRUNCATE t',
    'ANALYZE TABLE t',
    'GRANT SELECT ON t TO bob',
    "LOAD DATA LOCAL INFILE 'x' INTO TABLE t (a, b)",
    "SELECT * INTO OUTFILE '/tmp/x' FROM t",
    'SELECT 1;',
    'SELECT 1; -- done',
    'SELECT 1 -- @a\n, 2 # GET_LOCK(1)\n, /* := */ 3 /*+ MAX_EXECUTION_TIME(1000) */',
    "SELECT '@a', \"@b\", `@c`, 'it''s @d', N'@e', _utf8mb4'@f', x'40', b'01', 0x40, 1.5e-3, .5, -1--1",
    "SELECT 'a\\\\', '{\\\"a\\\": 1}', 'It\\'s', 'C:\\dir'",
    'SELECT :name, ?',
    'SELECT { fn NOW() }',
    'SELECT a->>"$.b" FROM t',
  ])('%s', (sql) => {
    expect(reason(sql)).toBeUndefined()
  })
})

describe('what may leave something behind says why', () => {
  test.each([
    ['SELECT @a', 'user variable'],
    ['SELECT 1 INTO @a', 'user variable'],
    ['SELECT @a := 1', 'user variable'],
    ['SELECT a := 1', 'user variable'],
    ["SELECT 'x', @'a b'", 'user variable'],
    ['SELECT@a', 'user variable'],
    ['UPDATE t SET a = (@n := @n + 1)', 'user variable'],
    ["SELECT GET_LOCK('a', 1)", 'user lock'],
    ["DO RELEASE_LOCK('a')", 'user lock'],
    ['SELECT release_all_locks()', 'user lock'],
    ['SELECT f(1)', 'function that is not built in'],
    ['SELECT shop.f(1)', 'function that is not built in'],
    ['SELECT shop.abs(1)', 'function that is not built in'],
    ['SELECT `abs`(1)', 'function that is not built in'],
    ['SELECT "abs"(1)', 'function that is not built in'],
    ['SELECT ??(?)', 'function that is not built in'],
    ['SELECT ??.??(?)', 'function that is not built in'],
    ['SELECT 1 + f (1)', 'function that is not built in'],
    ['SELECT HIGH_PRIORITY f(1)', 'function that is not built in'],
    ['SELECT COUNT (a) FROM t', 'function that is not built in'], // without IGNORE_SPACE
    ['INSERT INTO t (a) VALUES (f(1))', 'function that is not built in'],
    ['INSERT INTO t VALUES (1) ON DUPLICATE KEY UPDATE a = f(1)', 'function that is not built in'],
    ['WITH x (a) AS (SELECT f(1)) SELECT 1', 'function that is not built in'],
    ['WITH x (a) AS (SELECT 1) SELECT f(1)', 'function that is not built in'],
    ['SELECT /* x */ f /* y */ (1)', 'function that is not built in'],
    ['SELECT loc\u212Aate(1)', 'unreadable text'],
    ['SELECT 1;SELECT 2', 'several statements'],
    ['SELECT 1; /* x */ SELECT 2', 'several statements'],
    ['SELECT /*!50000 1 */', 'executable comment'],
    ['SELECT /*M!100000 1 */', 'executable comment'],
    ['SELECT 1; /*! SELECT 2 */', 'executable comment'],
    ['SET sql_mode = ""', 'SET'],
    ['SET @a = 1', 'SET'],
    ['USE shop', 'USE'],
    ['PREPARE s FROM "SELECT 1"', 'prepared statement'],
    ['EXECUTE s', 'prepared statement'],
    ['DEALLOCATE PREPARE s', 'prepared statement'],
    ['DROP PREPARE s', 'prepared statement'],
    ['LOCK TABLES t READ', 'LOCK'],
    ['UNLOCK TABLES', 'LOCK'],
    ['FLUSH TABLES WITH READ LOCK', 'FLUSH'],
    ['HANDLER t OPEN', 'HANDLER'],
    ['CALL p(1)', 'CALL'],
    ['CALL p', 'CALL'],
    ['BEGIN', 'transaction by hand'],
    ['START TRANSACTION', 'transaction by hand'],
    ['COMMIT', 'transaction by hand'],
    ['SAVEPOINT a', 'transaction by hand'],
    ['XA START "x"', 'transaction by hand'],
    ['CREATE TEMPORARY TABLE t (a INT)', 'temporary table'],
    ['CREATE OR REPLACE TEMPORARY TABLE t (a INT)', 'temporary table'],
    ['DROP TEMPORARY TABLE t', 'temporary table'],
    ['DROP DATABASE shop', 'database'],
    ['CREATE OR REPLACE DATABASE shop', 'database'],
    ['ALTER DATABASE CHARACTER SET latin1', 'database'],
    ['FROBNICATE', 'unknown statement'],
    ['', 'unknown statement'],
    ['-- nothing', 'unknown statement'],
    ['?', 'unreadable text'],
    ["'SELECT'", 'unreadable text'],
    ["SELECT 'open", 'unreadable text'],
    ['SELECT "open', 'unreadable text'],
    ['SELECT `open', 'unreadable text'],
    ['SELECT /* open', 'unreadable text'],
    ['SELECT (1', 'unreadable text'],
    ['SELECT 1)', 'unreadable text'],
    ['SELECT \0 1', 'unreadable text'],
    ['SELECT\u00a01', 'unreadable text'],
    ['SELECT 1.5into', 'unreadable text'],
    ['SELECT 1.into', 'unreadable text'],
    ['SELECT 1e5into', 'unreadable text'],
    ['SELECT $$a$$', 'unreadable text'],
    ['SELECT /*+ QB_NAME("*/ ") */ @a := 1 -- "', 'unreadable text'],
  ])('%s: %s', (sql, why) => {
    expect(reason(sql)).toBe(why)
  })

  test('a system variable is only read, but for SET', () => {
    expect(clean('SELECT @@a')).toBe(true)
    expect(clean('SELECT @@a, @b')).toBe(false)
    expect(clean('SET @@a = 1')).toBe(false)
  })
})

describe('a text that the sql_mode can read in two ways is as bad as the worse of them', () => {
  test('NO_BACKSLASH_ESCAPES ends a string at the quote after a backslash', () => {
    expect(clean("SELECT 'a\\', @a := 1, ''")).toBe(false)
    expect(clean("SELECT 'a\\' -- ', @a")).toBe(false)
    expect(effect("SELECT 'a\\'; COMMIT; -- '")).toBe('unknown')
  })

  test('ANSI_QUOTES knows no backslashes in double quotes', () => {
    expect(clean('SELECT "a\\", @a := 1, "b"')).toBe(false)
    expect(clean('SELECT "a\\" -- ", @a')).toBe(false)
    expect(clean(`SELECT "\\", @a := '\\'' -- "`)).toBe(false)
  })

  test('a reading that the server would refuse as a whole does not count', () => {
    expect(shapeOf("INSERT INTO t VALUES ('It\\'s')")).toMatchObject({ leavesState: undefined, transaction: 'none' })
    expect(shapeOf("INSERT INTO t VALUES ('It\\'s Bob\\'s', 1)")).toMatchObject({
      leavesState: undefined,
      transaction: 'none',
    })
    expect(shapeOf("SELECT 'C:\\'")).toMatchObject({ leavesState: undefined, transaction: 'none' })
  })
})

describe('what only one server has built in is clean only there', () => {
  test.each([
    ['SELECT UUID_TO_BIN(?)', 'mysql'],
    ['SELECT ANY_VALUE(a) FROM t', 'mysql'],
    [
      "SELECT * FROM JSON_TABLE(?, '$[*]' COLUMNS(id INT PATH '$.id', NESTED PATH '$.x' COLUMNS (y VARCHAR(9) PATH '$'))) AS j",
      'mysql',
    ],
    ['SELECT POINT(1, 1)', 'mysql'],
    ['SELECT NVL(a, b) FROM t', 'mariadb'],
    ['INSERT INTO t VALUES (NEXTVAL(s))', 'mariadb'],
    ['SELECT MD5(a) FROM t', 'mariadb'],
  ] as const)('%s: %s', (sql, flavour) => {
    const other: Flavour = flavour === 'mysql' ? 'mariadb' : 'mysql'
    const all: (Flavour | undefined)[] = [flavour, other, undefined]
    expect(all.map((each) => shapeOf(sql, each).leavesState === undefined)).toEqual([true, false, false])
  })
})

describe('what a statement does to an open transaction', () => {
  test.each([
    ['none', 'SELECT 1'],
    ['none', 'SELECT f(1)'], // a stored function can not commit
    ['none', 'INSERT INTO t VALUES (@a)'],
    ['none', 'WITH x AS (SELECT 1) DELETE FROM t'],
    ['none', 'SAVEPOINT a'],
    ['none', 'RELEASE SAVEPOINT a'],
    ['none', 'ROLLBACK TO a'],
    ['none', 'rollback work to savepoint a'],
    ['none', 'SET @a = 1, SESSION sql_mode = DEFAULT'],
    ['none', 'SET NAMES utf8mb4'],
    ['none', 'USE shop'],
    ['none', 'CREATE TEMPORARY TABLE t (a INT)'],
    ['none', 'DROP TEMPORARY TABLE t'],
    ['none', 'ANALYZE FORMAT=JSON UPDATE t SET a = 1'],
    ['begins', 'BEGIN'],
    ['begins', 'begin work'],
    ['begins', 'START TRANSACTION'],
    ['begins', '/* trace */ START /* x */ TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY;'],
    ['ends', 'COMMIT'],
    ['ends', 'commit work;'],
    ['ends', 'ROLLBACK'],
    ['ends', 'ROLLBACK AND NO CHAIN NO RELEASE'],
    ['commits', 'CREATE TABLE temporary (a INT)'],
    ['commits', 'ALTER TABLE t ADD a INT'],
    ['commits', 'DROP TABLE t'],
    ['commits', 'DROP DATABASE x'],
    ['commits', 'TRUNCATE TABLE t'],
    ['commits', 'RENAME TABLE t TO u'],
    ['commits', 'ANALYZE TABLE t'],
    ['commits', 'GRANT SELECT ON *.* TO bob'],
    ['commits', 'LOCK TABLES t READ'],
    ['commits', 'SET autocommit = 0'],
    ['commits', 'SET @a = 1, @@session . AutoCommit = 1'],
    ['commits', "SET PASSWORD = 'x'"],
    ['unknown', 'SET `autocommit` = 1'],
    ['unknown', 'SET "autocommit" = 1'],
    ['unknown', 'SET ?? = 1'],
    ['unknown', 'SET ?'],
    ['unknown', 'SET STATEMENT max_statement_time = 1 FOR CREATE TABLE t (a INT)'],
    ['unknown', 'COMMIT AND CHAIN'],
    ['unknown', 'COMMIT RELEASE'],
    ['unknown', 'ROLLBACK AND CHAIN'],
    ['unknown', 'BEGIN NOT ATOMIC COMMIT; END'],
    ['unknown', 'START REPLICA'],
    ['unknown', 'XA COMMIT "x"'],
    ['unknown', 'CALL p()'],
    ['unknown', 'EXECUTE s'],
    ['unknown', 'PREPARE s FROM "COMMIT"'],
    ['unknown', 'LOAD DATA INFILE "x" INTO TABLE t'], // NDB commits
    ['unknown', 'FLUSH TABLES'],
    ['unknown', 'HANDLER t OPEN'],
    ['unknown', 'SELECT 1; COMMIT'],
    ['unknown', 'SELECT 1 /*! INTO @a */'],
    ['unknown', 'FROBNICATE'],
    ['unknown', ''],
  ])('%s: %s', (expected, sql) => {
    expect(effect(sql)).toBe(expected)
  })
})

test('the verb is the first word, and after WITH the main one', () => {
  expect(shapeOf('/* x */ Select 1').verb).toBe('select')
  expect(shapeOf('((SELECT 1))').verb).toBe('select')
  expect(shapeOf('WITH x AS (SELECT 1), `select` AS (DELETE) UPDATE t SET a = 1').verb).toBe('update')
  expect(shapeOf('EXPLAIN SELECT 1').verb).toBe('explain')
})

test('the same text gives the same answer, however many others came between', () => {
  const first = shapeOf('SELECT f(1)')
  expect(shapeOf('SELECT f(1)')).toBe(first)
  for (let i = 0; i < 5000; i++) shapeOf(`SELECT ${i}`)
  expect(shapeOf('SELECT f(1)')).toEqual(first)
})

// --- properties -----------------------------------------------------------------------------------------------------------

const LEXEMES = [
  "'",
  '"',
  '`',
  '\\',
  "''",
  '""',
  '/*',
  '*/',
  '/*!',
  '-- ',
  '#',
  '\n',
  '(',
  ')',
  ';',
  '@',
  '@@',
  ':=',
  '?',
  '.',
  ',',
  ' ',
].concat([
  'a',
  '1',
  '1.',
  '1e5',
  'f',
  'f(',
  'abs',
  'SELECT',
  'INSERT',
  'INTO',
  'WITH',
  'AS',
  'SET',
  'autocommit',
  'COMMIT',
  'CREATE',
  'TEMPORARY',
  '\u212a',
  '\u00e9',
])
const lexemes = fc.array(fc.constantFrom(...LEXEMES), { maxLength: 20 }).map((parts) => parts.join(''))

function isShape(shape: Shape): boolean {
  const effects = ['none', 'begins', 'ends', 'commits', 'unknown']
  const reasonable = shape.leavesState === undefined || shape.leavesState.length > 0
  return typeof shape.verb === 'string' && effects.includes(shape.transaction) && reasonable
}

/** Not a verdict that promises more than the other one. */
function noMoreTrusting(changed: Shape, original: Shape): boolean {
  const stateHolds = changed.leavesState !== undefined || original.leavesState === undefined
  return stateHolds && (changed.transaction === original.transaction || changed.transaction === 'unknown')
}

test('no text makes it throw', () => {
  fc.assert(fc.property(fc.string({ unit: 'binary', maxLength: 60 }), (sql) => isShape(shapeOf(sql))))
  fc.assert(
    fc.property(lexemes, (sql) => isShape(shapeOf(sql))),
    { numRuns: 5000 },
  )
})

const STATEMENTS = [
  'SELECT 1',
  'SELECT @a := 1',
  'SELECT f ( 1 ) FROM t',
  'SELECT COALESCE( a , b ) , shop . f ( 2 ) FROM t WHERE a IN ( 1 , 2 )',
  'INSERT INTO shop . t ( a , b ) VALUES ( ? , ? )',
  'WITH RECURSIVE x ( a ) AS ( SELECT 1 ) , y ( b ) AS ( SELECT 2 ) SELECT CAST( a AS CHAR ( 10 ) ) FROM x',
  'COMMIT WORK AND NO CHAIN',
  'ROLLBACK TO SAVEPOINT x',
  'SET SESSION autocommit = 0',
  'SET NAMES utf8mb4',
  'START TRANSACTION READ ONLY',
  'CREATE TEMPORARY TABLE t ( a INT )',
  'CREATE TABLE t ( a INT , KEY k ( a ) )',
  'DROP DATABASE x',
  'ANALYZE TABLE t',
  'SELECT 1 ; SELECT 2',
  'LOCK TABLES t READ',
  'CALL p ( 1 )',
]
const space = fc.oneof(
  fc.constantFrom(' ', '\t', '\n', '\r\n', '\v', '\f', '  '),
  fc.string({ maxLength: 8 }).map((text) => ` /* ${text.replaceAll('*/', '')} */ `),
  fc.string({ maxLength: 8 }).map((text) => ` -- ${text}\n`),
  fc.string({ maxLength: 8 }).map((text) => `# ${text}\n`),
)

test('comments, white space and case change nothing', () => {
  const variant = fc.constantFrom(...STATEMENTS).chain((original) => {
    const words = original.split(' ')
    return fc.record({
      original: fc.constant(original),
      spaces: fc.array(space, { minLength: words.length, maxLength: words.length }),
      upper: fc.array(fc.boolean(), { minLength: words.length, maxLength: words.length }),
      words: fc.constant(words),
    })
  })
  fc.assert(
    fc.property(variant, ({ original, words, spaces, upper }) => {
      const changed = words.map((word, i) => spaces[i] + (upper[i] ? word.toUpperCase() : word.toLowerCase())).join('')
      expect(shapeOf(changed)).toEqual(shapeOf(original))
    }),
    { numRuns: 2000 },
  )
})

const TEMPLATES = [
  'SELECT ~',
  'SELECT a FROM t WHERE b = ~ AND c IN (~, ~) -- ~',
  'INSERT INTO t (a, b) VALUES (~, COALESCE(~, b))',
  'UPDATE t SET a = ~ WHERE b LIKE ~',
  'SET NAMES ~',
  'GRANT SELECT ON t TO ~',
]
const content = fc.oneof(fc.string({ maxLength: 12 }), lexemes).map((text) => text.replaceAll('\0', ''))

test('what a string holds never matters', () => {
  fc.assert(
    fc.property(fc.constantFrom(...TEMPLATES), content, (template, text) => {
      const literal = `'${text.replaceAll('\\', '').replaceAll("'", "''").replaceAll('\n', '')}'`
      expect(shapeOf(template.replaceAll('~', () => literal))).toEqual(shapeOf(template.replaceAll('~', "'x'")))
    }),
    { numRuns: 3000 },
  )
})

test('a string that a driver escaped with backslashes is read as that string, or doubted', () => {
  fc.assert(
    fc.property(fc.constantFrom(...TEMPLATES), content, (template, text) => {
      const literal = `'${text.replaceAll(/['"\\]/g, '\\$&').replaceAll('\n', '\\n')}'`
      const [changed, original] = [template.replaceAll('~', () => literal), template.replaceAll('~', "'x'")].map(
        (sql) => shapeOf(sql),
      )
      expect(noMoreTrusting(changed!, original!)).toBe(true)
    }),
    { numRuns: 3000 },
  )
})

test('a stored function, a user variable or a second statement is found wherever it stands', () => {
  const payload = fc.constantFrom('f(1)', '`f` (1)', 'a.f(1)', '@a', 'GET_LOCK(1, 1)', '(SELECT 1; SELECT 2)')
  const holes = [
    'SELECT ~',
    'SELECT 1, ~',
    'SELECT (~)',
    'SELECT ABS(~)',
    'SELECT 1 FROM t WHERE a = ~',
    'SELECT 1 FROM t WHERE a IN (1, ~)',
  ].concat(
    [
      'INSERT INTO t (a) VALUES (~)',
      'INSERT INTO t SELECT ~',
      'UPDATE t SET a = ~',
      'DELETE FROM t WHERE ~',
      'DO ~',
      'SELECT "x" "y", ~',
      "SELECT 'it''s', ~",
    ],
    [
      'WITH x (a) AS (SELECT ~) SELECT 1',
      'SELECT 1 FROM t ORDER BY ~',
      'SELECT CASE WHEN ~ THEN 1 END',
      'SELECT -~',
      'SELECT a -- x\n, ~',
      'SHOW TABLES WHERE ~',
    ],
  )
  fc.assert(
    fc.property(fc.constantFrom(...holes), payload, (hole, what) => {
      expect(clean(hole.replace('~', what))).toBe(false)
    }),
    { numRuns: 500 },
  )
})

test('a long text takes linear time', () => {
  const texts = [
    "'",
    '\\',
    "\\'",
    '"',
    '`',
    '(',
    'f(',
    'a.',
    '-',
    '--',
    '/',
    '/*',
    '/**/',
    '#',
    '@',
    '1',
    '1e',
    '?',
    '??',
    ';',
    '\n',
    'set ',
    'a,',
  ].flatMap((part) =>
    ['', 'SELECT ', "SELECT '", 'SET ', 'COMMIT '].map((start) => start + part.repeat(200_000 / part.length)),
  )
  for (const text of texts) {
    const started = performance.now()
    shapeOf(text)
    // Milliseconds as a rule; minutes if it were quadratic.
    expect(performance.now() - started, text.slice(0, 12)).toBeLessThan(5_000)
  }
})
