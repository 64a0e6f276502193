import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Flavour } from '../driver.js'
import { shapeOf } from './shape.js'

const lane = (sql: string, flavour?: Flavour): string | undefined => shapeOf(sql, flavour).lane

describe('a non-locking read that asks nothing about its session may run on a lane', () => {
  test.each([
    'SELECT 1',
    'SELECT * FROM users WHERE id = ?',
    'select id, name from t where a in (1, 2) and b = ? order by c limit 10;',
    '(SELECT 1) UNION ALL (SELECT 2) EXCEPT (SELECT 3) ORDER BY 1',
    'WITH x AS (SELECT 1) SELECT * FROM x',
    'WITH RECURSIVE x(a) AS (SELECT 1 UNION SELECT a + 1 FROM x), y (b, c) AS (SELECT 1, 2) SELECT * FROM x, y',
    'SELECT ROW_NUMBER() OVER (PARTITION BY a ORDER BY b), SUM(a) OVER w FROM t WINDOW w AS (PARTITION BY b)',
    'SELECT COUNT(*), MAX(a), GROUP_CONCAT(DISTINCT a ORDER BY b SEPARATOR ",") FROM t GROUP BY c WITH ROLLUP',
    'SELECT NOW(), UUID(), RAND(), RAND(3), DATABASE(), USER(), CURRENT_USER, VERSION(), UNIX_TIMESTAMP()',
    "SELECT REPLACE(a, 'x', 'y'), INSERT(a, 1, 2, 'z'), LOAD_FILE('/x'), UPDATEXML(a, 'b', 'c') FROM dual",
    'TABLE t ORDER BY a LIMIT 3',
    'VALUES ROW(1, 2), ROW(3, 4)',
    'HELP "select"',
    // words that are names
    'SELECT `update`, `lock`, `into`, `procedure`, `sql_calc_found_rows` FROM `for share`',
    'SELECT t.update, t.lock, t . into, shop.t.procedure FROM t',
    'SELECT share, sleep, row_count, benchmark, last_insert_id AS found_rows FROM t AS connection_id',
    "SELECT 'x FOR UPDATE', \"GET_LOCK('a', 1)\", 'INTO @a', `@a` -- SLEEP(1)\n FROM t # FOR UPDATE",
    'SELECT updated, locked, intro, share_id, nextval_, processlist_id FROM sessions, session, sys_trx',
    'SELECT a FROM t WHERE b = "the processlist" OR b = \'processlist\'',
    // FOR without UPDATE or SHARE
    'SELECT SUBSTRING(a FROM 1 FOR 2), SUBSTRING(b FROM 2 FOR ?), SUBSTRING(c FROM c FOR d) FROM t',
    'SELECT * FROM t FORCE INDEX FOR ORDER BY (i) USE INDEX FOR JOIN (j) IGNORE INDEX FOR GROUP BY (k)',
    "SELECT * FROM t FOR SYSTEM_TIME AS OF TIMESTAMP '2020-01-01', u FOR SYSTEM_TIME ALL",
    "SELECT * FROM t FOR SYSTEM_TIME BETWEEN '2020-01-01' AND NOW()",
    // system variables
    'SELECT @@version, @@version_comment, @@max_allowed_packet, @@session.sql_mode, @@local.time_zone',
    'SELECT @@global.anything, @@GLOBAL.`read_only`, @@`version`, @@Character_Set_Client, @@autocommit',
    // hints and comments
    'SELECT /*+ MAX_EXECUTION_TIME(100) NO_INDEX_MERGE(t) BKA(t) */ SQL_NO_CACHE HIGH_PRIORITY a FROM t',
    '/* traceparent=00-1 */ SELECT 1 -- done',
    // SHOW and EXPLAIN
    'SHOW DATABASES',
    "SHOW FULL TABLES FROM shop LIKE 'a%'",
    'SHOW EXTENDED FULL COLUMNS FROM t',
    'SHOW INDEX FROM t',
    'SHOW KEYS FROM t',
    'SHOW CREATE TABLE t',
    'SHOW TABLE STATUS',
    'SHOW GRANTS FOR bob',
    'SHOW CHARACTER SET',
    'SHOW COLLATION',
    'SHOW ENGINES',
    "SHOW GLOBAL STATUS LIKE 'Threads%'",
    'SHOW GLOBAL VARIABLES',
    'EXPLAIN SELECT * FROM t',
    'EXPLAIN EXTENDED SELECT 1',
    'EXPLAIN FORMAT=JSON SELECT 1',
    'EXPLAIN (SELECT 1) UNION SELECT 2',
    'DESCRIBE t',
    'DESC shop.t a',
  ])('%s', (sql) => {
    expect(lane(sql)).toBeUndefined()
  })

  test.each([
    ["SELECT * FROM JSON_TABLE(?, '$[*]' COLUMNS(id INT PATH '$.id', n FOR ORDINALITY)) AS j", 'mysql'],
    ['SELECT ANY_VALUE(a), POINT(1, 1), BIN_TO_UUID(b) FROM t', 'mysql'],
    ['SELECT MD5(a), NVL(a, b), MEDIAN(a) OVER () FROM t', 'mariadb'],
    ['VALUES (1, 2), (3, 4)', 'mariadb'],
  ] as const)('%s: %s', (sql, flavour) => {
    expect(lane(sql, flavour)).toBeUndefined()
  })
})

describe('what needs a session of its own says why', () => {
  test.each([
    // no reads
    ['INSERT INTO t VALUES (1)', 'not a read'],
    ['UPDATE t SET a = 1', 'not a read'],
    ['DELETE FROM t', 'not a read'],
    ['REPLACE INTO t VALUES (1)', 'not a read'],
    ['WITH x AS (SELECT 1) UPDATE t SET a = 1', 'not a read'],
    ['WITH x AS (SELECT 1) DELETE FROM t', 'not a read'],
    ['CREATE TABLE t (a INT)', 'not a read'],
    ['DROP TABLE t', 'not a read'],
    ['TRUNCATE t', 'not a read'],
    ['DO 1', 'not a read'],
    ['KILL 5', 'not a read'],
    ['KILL QUERY 5', 'not a read'],
    ['CHECKSUM TABLE t', 'not a read'],
    ['ANALYZE TABLE t', 'not a read'],
    ['ANALYZE SELECT * FROM t', 'not a read'],
    ['OPTIMIZE TABLE t', 'not a read'],
    ['LOAD DATA INFILE "x" INTO TABLE t', 'not a read'],
    // what leaves something behind
    ['SET @a = 1', 'SET'],
    ['SET STATEMENT max_statement_time = 1 FOR SELECT 1', 'SET'],
    ['USE shop', 'USE'],
    ['BEGIN', 'transaction by hand'],
    ['COMMIT', 'transaction by hand'],
    ['LOCK TABLES t READ', 'LOCK'],
    ['HANDLER t OPEN', 'HANDLER'],
    ['FLUSH TABLES', 'FLUSH'],
    ['CALL p()', 'CALL'],
    ['PREPARE s FROM "SELECT 1"', 'prepared statement'],
    ['CREATE TEMPORARY TABLE t (a INT)', 'temporary table'],
    ['SELECT @a', 'user variable'],
    ['SELECT @a := 1', 'user variable'],
    ['SELECT 1 INTO @a', 'user variable'],
    ['SELECT f(1)', 'function that is not built in'],
    ['SELECT shop.sleep(1)', 'function that is not built in'],
    ['SELECT `sleep`(1)', 'function that is not built in'],
    ['SELECT ??(1)', 'function that is not built in'],
    ["SELECT GET_LOCK('a', 1)", 'user lock'],
    ["SELECT RELEASE_LOCK('a')", 'user lock'],
    ['SELECT RELEASE_ALL_LOCKS()', 'user lock'],
    ['SELECT 1; SELECT 2', 'several statements'],
    ['SELECT /*!80000 1 */', 'executable comment'],
    ['SELECT 1 /*M!100000 FOR UPDATE */', 'executable comment'],
    ["SELECT 'open", 'unreadable text'],
    ['FROBNICATE', 'unknown statement'],
    ['', 'unknown statement'],
    // locks
    ['SELECT * FROM t FOR UPDATE', 'locking read'],
    ['SELECT * FROM t FOR UPDATE SKIP LOCKED', 'locking read'],
    ['SELECT * FROM t FOR UPDATE WAIT 3', 'locking read'],
    ['SELECT * FROM t FOR UPDATE OF t NOWAIT', 'locking read'],
    ['SELECT * FROM t FOR SHARE', 'locking read'],
    ['SELECT * FROM t for/**/share', 'locking read'],
    ['SELECT * FROM t FOR -- x\n SHARE', 'locking read'],
    ['SELECT * FROM t WHERE a = 1FOR SHARE', 'unreadable text'],
    ['SELECT * FROM t WHERE a = ?FOR SHARE', 'locking read'],
    ["SELECT * FROM t WHERE a = 'x'FOR SHARE", 'locking read'],
    ['SELECT * FROM t LOCK IN SHARE MODE', 'locking read'],
    ['SELECT * FROM (SELECT * FROM t FOR UPDATE) AS d', 'locking read'],
    ['SELECT (SELECT a FROM t LIMIT 1 FOR SHARE)', 'locking read'],
    ['WITH x AS (SELECT * FROM t FOR UPDATE) SELECT * FROM x', 'locking read'],
    ['(SELECT 1) UNION (SELECT a FROM t LOCK IN SHARE MODE)', 'locking read'],
    ['TABLE t FOR UPDATE', 'locking read'],
    ['EXPLAIN SELECT * FROM t WHERE id = 1 FOR SHARE', 'locking read'],
    // where the answer goes
    ["SELECT * INTO OUTFILE '/tmp/x' FROM t", 'INTO'],
    ["SELECT * FROM t INTO DUMPFILE '/tmp/x'", 'INTO'],
    ['SELECT a INTO b FROM t', 'INTO'],
    ["SELECT ?.into outfile 'x'", 'INTO'],
    ["SELECT '1'.into outfile 'x'", 'INTO'],
    ["SELECT 1 /* . */ into outfile 'x'", 'INTO'],
    ["TABLE t INTO OUTFILE '/tmp/x'", 'INTO'],
    ['SELECT * FROM t PROCEDURE ANALYSE()', 'function that is not built in'],
    ['SELECT * FROM t PROCEDURE ANALYSE', 'PROCEDURE'],
    // what the next statement, or this one, would ask the session
    ['SELECT SQL_CALC_FOUND_ROWS * FROM t LIMIT 1', 'SQL_CALC_FOUND_ROWS'],
    ['SELECT FOUND_ROWS()', 'function of the session'],
    ['SELECT ROW_COUNT()', 'function of the session'],
    ['SELECT LAST_INSERT_ID()', 'function of the session'],
    ['SELECT LAST_INSERT_ID(7)', 'function of the session'],
    ['SELECT last_insert_id /* x */ ()', 'function of the session'],
    ['SELECT CONNECTION_ID()', 'function of the session'],
    ["SELECT IS_FREE_LOCK('a')", 'user lock'],
    ["SELECT IS_USED_LOCK('a')", 'user lock'],
    ['SELECT @@last_insert_id', 'system variable'],
    ['SELECT @@identity', 'system variable'],
    ['SELECT @@warning_count', 'system variable'],
    ['SELECT @@session.error_count', 'system variable'],
    ['SELECT @@transaction_read_only', 'system variable'],
    ['SELECT @@tx_read_only', 'system variable'],
    ['SELECT @@pseudo_thread_id', 'system variable'],
    ['SELECT @@rand_seed1', 'system variable'],
    ['SELECT @@timestamp', 'system variable'],
    ['SELECT @@in_transaction', 'system variable'],
    ['SELECT @@last_gtid', 'system variable'],
    ['SELECT @@version, @@session.gtid_next', 'system variable'],
    ['SELECT @@?', 'system variable'],
    ['SELECT @@', 'system variable'],
    ['SHOW WARNINGS', 'SHOW WARNINGS'],
    ['SHOW ERRORS LIMIT 1', 'SHOW WARNINGS'],
    ['SHOW COUNT(*) ERRORS', 'SHOW WARNINGS'],
    ['SHOW VARIABLES', 'system variable'],
    ["SHOW VARIABLES LIKE 'tx_read_only'", 'system variable'],
    ['SHOW SESSION VARIABLES', 'system variable'],
    ['SHOW LOCAL STATUS', 'system variable'],
    ['SHOW STATUS', 'system variable'],
    ['SHOW PROFILE', 'SHOW'],
    ['SHOW PROFILES', 'SHOW'],
    ['SHOW MASTER STATUS', 'SHOW'],
    ['SHOW EXPLAIN FOR 5', 'SHOW'],
    ['SHOW `TABLES`', 'SHOW'],
    ['SHOW', 'SHOW'],
    ['SHOW PROCESSLIST', 'table about sessions'],
    ['SHOW FULL PROCESSLIST', 'table about sessions'],
    ['SELECT * FROM information_schema.PROCESSLIST', 'table about sessions'],
    ['SELECT * FROM information_schema . /* x */ `processlist`', 'table about sessions'],
    ['SELECT * FROM information_schema."PROCESSLIST"', 'table about sessions'],
    ['SELECT * FROM "performance_schema".threads', 'table about sessions'],
    ['SELECT * FROM t WHERE a = "processlist"', 'table about sessions'], // with ANSI_QUOTES that is a name
    ['SELECT * FROM information_schema.INNODB_TRX', 'table about sessions'],
    ['SELECT * FROM information_schema.SESSION_VARIABLES', 'table about sessions'],
    ['SELECT * FROM information_schema.OPTIMIZER_TRACE', 'table about sessions'],
    ['SELECT * FROM performance_schema.session_status', 'table about sessions'],
    ['SELECT * FROM performance_schema.session_connect_attrs', 'table about sessions'],
    ['SELECT * FROM `performance_schema`.threads', 'table about sessions'],
    // what waits
    ['SELECT SLEEP(1)', 'function that waits'],
    ['SELECT a FROM t WHERE sleep (1)', 'function that waits'],
    ['SELECT BENCHMARK(100000000, 1)', 'function that waits'],
    ["SELECT MASTER_POS_WAIT('x', 1)", 'function that waits'],
    // sequences
    ['SELECT NEXT VALUE FOR s', 'sequence'],
    ['SELECT PREVIOUS VALUE FOR s', 'sequence'],
    ['SELECT next\nvalue -- x\nfor s', 'sequence'],
    ['SELECT s.nextval', 'sequence'],
    ['SELECT s.currval FROM dual', 'sequence'],
    // EXPLAIN
    ['EXPLAIN ANALYZE SELECT 1', 'EXPLAIN'],
    ['EXPLAIN ANALYZE FORMAT=TREE SELECT 1', 'EXPLAIN'],
    ['EXPLAIN FOR CONNECTION 5', 'EXPLAIN'],
    ['EXPLAIN FORMAT=JSON FOR CONNECTION 5', 'EXPLAIN'],
    ['EXPLAIN FOR SCHEMA shop SELECT 1', 'EXPLAIN'],
    ['EXPLAIN UPDATE t SET a = 1', 'EXPLAIN'],
    ['EXPLAIN WITH x AS (SELECT 1) DELETE FROM t', 'EXPLAIN'],
    ['EXPLAIN FORMAT=JSON INTO @v SELECT 1', 'user variable'],
    ['DESC ANALYZE SELECT 1', 'EXPLAIN'],
    // hints
    ['SELECT /*+ SET_VAR(sort_buffer_size = 16M) */ 1', 'optimizer hint'],
    ['SELECT /*+ BKA(t) Resource_Group(g) */ 1', 'optimizer hint'],
  ])('%s: %s', (sql, why) => {
    expect(lane(sql)).toBe(why)
  })

  test('SELECT 1, 1, 1, ...: long text', () => {
    expect(lane(`SELECT 1${', 1'.repeat(100_000)}`)).toBe('long text')
  })

  test.each([
    ['SELECT NEXTVAL(s)', 'sequence', 'mariadb'],
    ['SELECT LASTVAL(s), SETVAL(s, 5)', 'sequence', 'mariadb'],
    ["SELECT MASTER_GTID_WAIT('0-1-1')", 'function that waits', 'mariadb'],
    ["SELECT WAIT_FOR_EXECUTED_GTID_SET('x')", 'function that waits', 'mysql'],
    ["SELECT SOURCE_POS_WAIT('x', 4)", 'function that waits', 'mysql'],
    ['SELECT PS_CURRENT_THREAD_ID()', 'function of the session', 'mysql'],
  ] as const)('%s: %s', (sql, why, flavour) => {
    expect(lane(sql, flavour)).toBe(why)
    expect(lane(sql)).toBeDefined()
  })
})

describe('a text that the sql_mode can read in two ways is judged by the worse of them', () => {
  test.each([
    "SELECT 'a\\', SLEEP(1), ''",
    "SELECT 'a\\' FOR UPDATE -- '",
    'SELECT "a\\" FOR SHARE -- "',
    `SELECT "\\", @@warning_count, '\\'' -- "`,
    `SELECT "a\\", '" INTO OUTFILE "x" -- '`,
  ])('%s', (sql) => {
    expect(lane(sql)).toBeDefined()
  })

  test('a reading that the server would refuse does not count', () => {
    expect(lane("SELECT * FROM t WHERE a = 'It\\'s'")).toBeUndefined()
  })
})

// --- properties -----------------------------------------------------------------------------------------------------------

const PAYLOADS = [
  '@a',
  '@a := 1',
  'GET_LOCK(1, 1)',
  'is_free_lock(1)',
  'f(1)',
  'shop . f(1)',
  'SLEEP(1)',
  'benchmark /* x */ (1, 1)',
  'LAST_INSERT_ID()',
  'FOUND_ROWS ( )',
  'connection_id()',
  '@@warning_count',
  '@@session.last_insert_id',
  '(SELECT a FROM x FOR UPDATE)',
  '(SELECT a FROM x for /* x */ share)',
  '(SELECT a FROM x LOCK IN SHARE MODE)',
  '(SELECT SQL_CALC_FOUND_ROWS a FROM x)',
  '(SELECT a FROM information_schema.processlist)',
  '(SELECT 1 INTO OUTFILE "x")',
  'NEXT VALUE FOR q',
  'q.nextval',
  '(SELECT 1; SELECT 2)',
  '/*! 1 */',
  '(SELECT /*+ SET_VAR(a=1) */ 1)',
]
const HOLES = [
  'SELECT ~',
  'SELECT 1, ~',
  'SELECT (~)',
  'SELECT ABS(~)',
  'SELECT -~',
  'SELECT a AS b, ~',
  'SELECT a.b, ~ FROM t',
  'SELECT 1.5, .5, 1e-3, ~',
  'SELECT x IN (1, 2, ~)',
  'SELECT CASE WHEN ~ THEN 1 END',
  'SELECT 1 FROM t WHERE a = ~',
  'SELECT 1 FROM t WHERE a IN (1, ~)',
  'SELECT 1 FROM t WHERE a = ? AND ~',
  'SELECT 1 FROM t JOIN u ON ~',
  'SELECT 1 FROM t HAVING ~',
  'SELECT 1 FROM t ORDER BY ~',
  'SELECT a -- x\n, ~',
  'SELECT "x" "y", ~',
  "SELECT 'it''s', ~",
  "SELECT 'it\\'s', ~",
  'SELECT `a``b`, ~',
  'SELECT @@version, ~',
  'WITH x (a) AS (SELECT ~) SELECT 1',
  '(SELECT 1) UNION (SELECT ~)',
  'TABLE t ORDER BY ~',
  'VALUES ROW(1, ~)',
  'SHOW TABLES WHERE ~',
  'EXPLAIN SELECT ~',
]

test('without a payload the holes are for a lane', () => {
  for (const sql of HOLES) expect([sql, lane(sql.replace('~', 'a'))]).toEqual([sql, undefined])
})

test('what needs a session of its own is found wherever it stands', () => {
  for (const sql of HOLES) {
    for (const payload of PAYLOADS) {
      const text = sql.replace('~', payload)
      expect([text, lane(text)]).not.toEqual([text, undefined])
      expect([text, lane(text.toUpperCase())]).not.toEqual([text, undefined])
    }
  }
})

const quoted = fc.oneof(fc.string({ maxLength: 12 }), fc.constantFrom(...PAYLOADS))

test('what strings, comments and quoted names hold never matters', () => {
  const sure = fc.constantFrom(...HOLES.filter((sql) => !sql.includes('\\')))
  const inert = fc.oneof(
    quoted.map((text) => `'${text.replaceAll(/[\\\0]/g, '').replaceAll("'", "''")}'`),
    quoted.map((text) => `x.\`${text.replaceAll(/[\\\0`]/g, '')}_\``),
    quoted.map((text) => `1 -- ${text.replaceAll(/[\n\0]/g, '')}\n`),
    quoted.map((text) => `1 # ${text.replaceAll(/[\n\0]/g, '')}\n`),
    quoted.map((text) => `1 /* ${text.replaceAll('*/', '').replaceAll('\0', '')} */`),
  )
  fc.assert(
    fc.property(sure, inert, (sql, text) => {
      expect(lane(sql.replace('~', () => text))).toBeUndefined()
    }),
    { numRuns: 3000 },
  )
})

test('a word that is only a part of a name, or longer, is not that word', () => {
  const word = fc.constantFrom('update', 'lock', 'into', 'procedure', 'sql_calc_found_rows', 'sleep', 'processlist')
  const around = fc.constantFrom('x', '_', '1', 'é', '$')
  const known = fc.constantFrom(...HOLES.filter((sql) => !sql.startsWith('EXPLAIN'))) // there any word counts
  fc.assert(
    fc.property(known, word, around, fc.boolean(), (sql, name, more, isPart) => {
      const text = isPart && name !== 'processlist' ? `t.${name}` : `x_${name}${more}`
      expect(lane(sql.replace('~', () => text))).toBeUndefined()
    }),
    { numRuns: 2000 },
  )
})

test('only a read is ever for a lane, and only what leaves nothing behind', () => {
  const lexemes =
    `' " \` \\ '' /* */ /*! /*+ -- # ( ) ; @ @@ := ? . , = 1 1.5 a t FROM WHERE UNION VALUE FOR SHARE UPDATE
    INTO LOCK IN MODE SET SHOW TABLES EXPLAIN ANALYZE TABLE VALUES WITH AS f ABS SLEEP version global`.split(/\s+/)
  const text = fc.array(fc.constantFrom(...lexemes, '\n', ' '), { maxLength: 20 })
  const first = fc.constantFrom('SELECT', '(SELECT', 'WITH x AS (SELECT 1)', 'SHOW', 'EXPLAIN', 'UPDATE', '')
  fc.assert(
    fc.property(first, text, fc.constantFrom(' ', ''), (start, parts, joint) => {
      const shape = shapeOf([start, ...parts].join(joint))
      expect(shape.lane).not.toBe('')
      if (shape.lane !== undefined) return
      expect(shape.leavesState).toBeUndefined()
      expect(shape.transaction).toBe('none')
      expect(shape.form).not.toBe(0)
      expect(['select', 'table', 'values', 'show', 'explain', 'describe', 'desc', 'help']).toContain(shape.verb)
    }),
    { numRuns: 10_000 },
  )
})
