import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { createConnection, type Connection, type ResultSetHeader } from 'mysql2/promise'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { Flavour } from '../../src/driver.js'
import { isBuiltIn } from '../../src/sql/functions.js'
import { shapeOf } from '../../src/sql/shape.js'
import { availableServers, startServer, type TestServer } from '../../src/testing/server.js'

/** What shape calls clean, on the server that can run it. `~` stands for a new number. */
const CLEAN = `
SELECT 1
select id, v from t where v in (1, 2) and id > 0 order by id limit 10
SELECT COUNT(*), MAX(v), GROUP_CONCAT(DISTINCT v ORDER BY v SEPARATOR ",") FROM t GROUP BY s HAVING COUNT(*) > 0
SELECT CAST(v AS CHAR(10)), CONVERT(v, DECIMAL(10, 2)), CONVERT(s USING utf8mb4), BINARY(s) FROM t
SELECT NOW() + INTERVAL (1 + 1) DAY, DATE_ADD(NOW(), INTERVAL 1 DAY), EXTRACT(DAY FROM NOW())
SELECT IF(v, 1, 2), IFNULL(v, 1), CASE WHEN (v) THEN (1) ELSE (2) END, LEFT(s, 1), REPLACE(s, 'a', 'b') FROM t
SELECT ROW_NUMBER() OVER (PARTITION BY v ORDER BY id), SUM(v) OVER w FROM t WINDOW w AS (PARTITION BY v)
SELECT id FROM t USE INDEX (v) WHERE v = 1
SELECT id FROM t FORCE INDEX FOR ORDER BY (v) ORDER BY v
SELECT id FROM t WHERE MATCH (s) AGAINST ('x' IN BOOLEAN MODE)
SELECT t.id FROM t JOIN u USING (id) LEFT JOIN (SELECT 1 AS a) AS d ON (d.a = t.v)
SELECT 1 FROM t WHERE EXISTS (SELECT 1) AND NOT (v = ANY (SELECT 2)) OR (v, 1) = (1, 1)
SELECT id FROM t WHERE id = 1 FOR UPDATE
SELECT id FROM t WHERE id = 1 LOCK IN SHARE MODE
SELECT id FROM t WHERE id = 1 FOR UPDATE SKIP LOCKED
(SELECT 1) UNION ALL (SELECT 2) EXCEPT (SELECT 3)
SELECT DISTINCT (v) FROM t
SELECT SQL_NO_CACHE HIGH_PRIORITY STRAIGHT_JOIN v FROM t
SELECT SQL_BIG_RESULT SQL_BUFFER_RESULT v FROM t GROUP BY v WITH ROLLUP
WITH x AS (SELECT 1) SELECT * FROM x
WITH RECURSIVE x(a) AS (SELECT 1 UNION SELECT a + 1 FROM x WHERE a < 5), y (b, c) AS (SELECT 1, 2) SELECT * FROM x, y
SELECT @@autocommit, @@session.sql_mode, @@global.read_only, @@version
SELECT SQL_CALC_FOUND_ROWS * FROM t LIMIT 1
SELECT FOUND_ROWS(), LAST_INSERT_ID(), ROW_COUNT(), CONNECTION_ID(), DATABASE(), USER(), CURRENT_USER(), VERSION()
SELECT LAST_INSERT_ID(7)
UPDATE u SET v = LAST_INSERT_ID(v + 1)
SELECT RAND(), RAND(7), UUID(), UUID_SHORT(), SLEEP(0), BENCHMARK(1, 1), SYSDATE(), CURRENT_TIMESTAMP(6)
SELECT IS_FREE_LOCK('a'), IS_USED_LOCK('a')
SELECT JSON_OBJECT('a', 1), JSON_EXTRACT('{"a": 1}', '$.a'), JSON_VALID('x'), JSON_ARRAYAGG(v), JSON_CONTAINS('1', '1') FROM t
SELECT REGEXP_REPLACE(s, 'a', 'b'), s RLIKE ('a'), s LIKE ('a%'), SUBSTRING(s, 1), TRIM(BOTH 'x' FROM s), POSITION('a' IN s) FROM t
SELECT ST_ASTEXT(ST_GEOMFROMTEXT('POINT(1 1)')), ST_DISTANCE(ST_GEOMFROMTEXT('POINT(1 1)'), ST_GEOMFROMTEXT('POINT(2 2)'))
SELECT FROM_UNIXTIME(0), UNIX_TIMESTAMP(), STR_TO_DATE('2020', '%Y'), CONVERT_TZ(NOW(), '+00:00', '+01:00'), TIMESTAMPDIFF(DAY, NOW(), NOW())
SELECT AES_ENCRYPT('a', 'b'), SHA2('a', 256), CRC32('a'), HEX('a'), TO_BASE64('a'), COMPRESS('a'), INET_ATON('1.2.3.4')
SELECT EXTRACTVALUE('<a>b</a>', '/a'), UPDATEXML('<a/>', '/a', '<b/>'), NAME_CONST('a', 1), COERCIBILITY('a'), CHARSET('a')
SELECT CAST('nonsense' AS SIGNED), 1 / 0
SELECT '@a', "it""s", 'it''s', N'e', _utf8mb4'f', x'40', b'01', 0x40, 1.5e-3, .5, -1--1, 'a\\\\', '{\\"a\\": 1}', 'It\\'s'
SELECT 1 -- @a := 1
SELECT /*+ MAX_EXECUTION_TIME(1000) */ 1 # GET_LOCK('a', 1)
SELECT { fn NOW() }, { d '2020-01-01' }
SELECT 1;
SELECT 1; -- done
SELECT id FROM t PROCEDURE_IS_AN_ALIAS
SELECT SCHEMA_NAME FROM information_schema.SCHEMATA
SELECT * FROM v
INSERT INTO t(v,s) VALUES (1,'a')
insert into t (v, s) values (1, 'a'), (2, 'b') on duplicate key update v = values(v), s = concat(s, 'x')
INSERT INTO \`t\` (\`v\`) VALUES (1)
INSERT INTO \`shop\`.\`t\`(\`v\`) VALUES (DEFAULT), (DEFAULT(v))
INSERT INTO shop . t (v) SELECT v FROM u
INSERT IGNORE INTO t (id) VALUE (1)
INSERT t (v) VALUES (1)
INSERT INTO t SET v = 1, s = UPPER('x')
INSERT INTO t (id, v) SELECT id, v FROM u ON DUPLICATE KEY UPDATE v = t.v
INSERT INTO p PARTITION (p0) (a) VALUES (1)
REPLACE INTO t (id, v) VALUES (1, 1)
REPLACE t (id, v) VALUES (1, 1)
UPDATE t SET v = 1, s = COALESCE(s, '') WHERE id BETWEEN (1) AND (2)
UPDATE t JOIN u ON (t.id = u.id) SET t.v = u.v
DELETE FROM t WHERE id = 99 ORDER BY id LIMIT 1
DELETE t FROM t JOIN u ON (t.id = u.id) WHERE t.v LIKE ("x")
DO SLEEP(0)
DO 1, 2
SHOW TABLES LIKE "a%"
SHOW COLUMNS FROM t
SHOW CREATE TABLE t
SHOW INDEX FROM t
SHOW FULL PROCESSLIST
SHOW SESSION VARIABLES LIKE 'sql_mode'
SHOW STATUS LIKE 'Threads%'
SHOW WARNINGS
SHOW COUNT(*) ERRORS
SHOW GRANTS
SHOW ENGINES
SHOW ENGINE INNODB STATUS
SHOW TRIGGERS
SHOW DATABASES WHERE LENGTH(\`Database\`) > (1)
EXPLAIN SELECT * FROM t
EXPLAIN FORMAT=JSON SELECT * FROM t
EXPLAIN UPDATE t SET v = 1
EXPLAIN t
DESCRIBE t
DESC t id
HELP 'select'
CREATE TABLE n~ (a INT(11) NOT NULL, b VARCHAR(10), c ENUM("x"), d DATETIME(6), PRIMARY KEY (a), KEY k (b), UNIQUE KEY q (c))
CREATE TABLE IF NOT EXISTS n~ (a INT DEFAULT (1 + 1), b INT AS (a + 1), CHECK (a > 0)) ENGINE = InnoDB
CREATE TABLE n~ LIKE t
CREATE TABLE n~ AS SELECT id, v FROM t
CREATE TABLE n~ (id INT, CONSTRAINT c~ FOREIGN KEY (id) REFERENCES t (id))
CREATE TABLE n~ (id INT PRIMARY KEY) PARTITION BY KEY (id)
CHECKSUM TABLE t
CREATE VIEW w~ AS SELECT id FROM t
CREATE DATABASE d~
CREATE USER u~
CREATE ROLE r~
ALTER TABLE t ADD INDEX i~ (v), ADD COLUMN (z~ DECIMAL(5, 1))
ALTER TABLE t COMMENT 'x'
RENAME TABLE bare TO bared, bared TO bare
TRUNCATE TABLE bare
DROP TABLE IF EXISTS none
DROP VIEW IF EXISTS none
OPTIMIZE TABLE t
CHECK TABLE t
REPAIR TABLE t
ANALYZE TABLE t
GRANT SELECT ON shop.t TO bob
REVOKE SELECT ON shop.t FROM bob
`

const CLEAN_ON: Record<Flavour, string> = {
  mariadb: `
SELECT NVL(v, 1), MEDIAN(v) OVER (PARTITION BY id), MD5('a'), SHA1('a'), CHR(65), TO_CHAR(NOW(), 'YYYY') FROM t
SELECT NEXTVAL(q), LASTVAL(q), SETVAL(q, 5)
INSERT INTO t (v) VALUES (NEXT VALUE FOR q)
INSERT INTO t (v) VALUES (1) RETURNING (v), id
DELETE FROM t WHERE id = 99 RETURNING id
REPLACE INTO t (id) VALUES (1) RETURNING id
SELECT * FROM (SELECT 1) AS d JOIN JSON_TABLE('[1]', '$[*]' COLUMNS(id INT PATH '$', n FOR ORDINALITY)) AS j
VALUES (1, 2), (3, 4)
ANALYZE SELECT * FROM t
ANALYZE FORMAT=JSON UPDATE t SET v = 2 WHERE id = 1
CREATE SEQUENCE q~
ALTER SEQUENCE q RESTART 3
CREATE OR REPLACE TABLE n~ (a INT)
SELECT v FROM t LIMIT ROWS EXAMINED 100
SELECT \\N
`,
  mysql: `
SELECT BIN_TO_UUID(UUID_TO_BIN(UUID())), ANY_VALUE(v), REGEXP_LIKE('a', 'b'), GROUPING(v) FROM t GROUP BY v WITH ROLLUP
SELECT ST_ASTEXT(POINT(1, 1)), IS_UUID('a'), FORMAT_BYTES(1), PS_CURRENT_THREAD_ID(), RANDOM_BYTES(1), JSON_OVERLAPS('1', '1')
SELECT * FROM JSON_TABLE('[1]', '$[*]' COLUMNS(id INT PATH '$', n FOR ORDINALITY, NESTED PATH '$.x' COLUMNS (y VARCHAR(9) PATH '$'))) AS j
SELECT * FROM t, LATERAL (SELECT t.v) AS l (a)
SELECT 1 MEMBER OF('[1]')
INSERT INTO t (v) VALUES (1) AS new (n) ON DUPLICATE KEY UPDATE v = new.n
INSERT INTO t (v) VALUES ROW(1), ROW(2)
VALUES ROW(1, 2), ROW(3, 4)
TABLE t
WITH x AS (SELECT 1) UPDATE t SET v = 1
WITH x (a) AS (SELECT 1) DELETE FROM t WHERE id = 99
EXPLAIN ANALYZE SELECT * FROM t
SELECT /*+ SET_VAR(sort_buffer_size = 16M) NO_INDEX_MERGE(t) */ @@sort_buffer_size
SELECT id FROM t FOR SHARE OF t NOWAIT
ANALYZE TABLE t UPDATE HISTOGRAM ON s WITH 5 BUCKETS
`,
}

/** What is clean although it fails. */
const FAILING = `
SELECT missing FROM t
SELECT 1 FROM missing
SELECT nosuch.*
SELECT f FROM
SELECT 1 ABS(1)
INSERT INTO t (id) VALUES (5), (1)
UPDATE t SET id = 1
KILL QUERY 4294967290
SELECT * INTO OUTFILE '/nowhere/x' FROM t
LOAD DATA INFILE '/nowhere/x' INTO TABLE t (v, s)
CREATE TABLE t (a INT)
DROP TABLE missing
`

/** What is not clean, but leaves an open transaction as it is. */
const TRANSACTION_NONE = `
SET @a = 1
SET @a = 1, SESSION sort_buffer_size = DEFAULT
SET SESSION sql_mode = ''
SET NAMES utf8mb4
SET CHARACTER SET utf8mb4
SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED
SET TRANSACTION READ ONLY
SET GLOBAL max_connect_errors = 1000
SELECT @a := 1
SELECT f(1)
SELECT GET_LOCK('a', 0)
DO RELEASE_ALL_LOCKS()
USE other
SAVEPOINT a
RELEASE SAVEPOINT a
ROLLBACK TO a
CREATE TEMPORARY TABLE tmp~ (a INT)
CREATE TEMPORARY TABLE tmp~ AS SELECT 1 AS a
DROP TEMPORARY TABLE IF EXISTS tmp
`

/** What must show: without these, seeing no difference would prove nothing. */
const DIRTY: [string, string][] = [
  ['SET @a = 1', 'variables'],
  ['SELECT @a := 1', 'variables'],
  ['SELECT f(1)', 'variables'],
  ["SET SESSION sql_mode = ''", 'system'],
  ['SET NAMES latin1', 'system'],
  ['ALTER DATABASE CHARACTER SET ascii', 'system'],
  ['USE other', 'database'],
  ["SELECT GET_LOCK('a', 0)", 'locks'],
  ['BEGIN', 'transaction'],
  ['LOCK TABLES t READ', 'tables'],
  ['CREATE TEMPORARY TABLE tmp (a INT)', 'tables'],
  ["PREPARE x FROM 'SELECT 1'", 'prepared'],
]

/** What may stand before a name and a parenthesis without making it a call, and where to try it. */
const NO_CALL_AFTER = `INTO TABLE EXISTS AS WITH RECURSIVE INDEX KEY REFERENCES INSERT REPLACE IGNORE JOIN 'x' "x" \`v\` (1) x'41'`
const FRAMES = `
~
SELECT ~
SELECT v ~ FROM t
SELECT v LIKE ~ FROM t
SELECT * FROM t ~
SELECT * FROM t t1 JOIN t t2 ~
SELECT * FROM t WHERE v ~
SELECT * FROM t WHERE (v) ~
SELECT v FROM t GROUP BY v ~
SELECT 1 UNION SELECT 2 ~
SELECT CAST(1 ~)
SELECT TRIM(1 ~)
SELECT INTERVAL 1 ~
SELECT CASE ~ END
SELECT CASE WHEN 1 ~ END
INSERT ~ VALUES (1)
INSERT INTO t ~
INSERT INTO t (v, s) VALUES (1, 1) ~
UPDATE ~ SET v = 1
UPDATE t SET v = ~
UPDATE t SET v = 1 ~
DELETE ~
DO ~
SHOW TABLES ~
CREATE TABLE IF NOT EXISTS c (a INT) ~
`

/** These change with every statement, or with the clock: nobody can rely on what an earlier borrower left in them. */
const VOLATILE =
  /^(timestamp|last_insert_id|identity|insert_id|error_count|warning_count|rand_seed\d|pseudo_thread_id|last_gtid|statement_id)$/i

interface State {
  readonly database: string
  readonly transaction: boolean
  readonly system: string
  readonly variables: string
  readonly tables: string
  readonly prepared: string
  readonly locks: number
}

describe.each(availableServers())('%s', (kind) => {
  let server: TestServer
  let session: Connection
  let next = 0
  const open = async (sqlMode = ''): Promise<Connection> => {
    const where = { host: server.host, port: server.port, user: 'root', database: 'shop' }
    const connection = await createConnection({ ...where, multipleStatements: true, flags: ['-IGNORE_SPACE'] })
    if (sqlMode !== '') await connection.query('SET SESSION sql_mode = ?', [sqlMode])
    return connection
  }
  const opened: Connection[] = []
  const another = async (sqlMode?: string): Promise<Connection> => {
    const connection = await open(sqlMode)
    opened.push(connection)
    return connection
  }
  const corpus = (text: string): string[] =>
    text
      .trim()
      .split('\n')
      .map((sql) => sql.replaceAll('~', () => String(++next)))

  beforeAll(async () => {
    server = await startServer(kind, {
      flags: ['--log-bin-trust-function-creators=1', '--loose-innodb-lock-wait-timeout=1'],
    })
    for (const sql of ['CREATE DATABASE shop CHARACTER SET utf8mb4', 'CREATE DATABASE other']) await server.query(sql)
    session = await open()
    await session.query(`
      CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v INT DEFAULT 3, s VARCHAR(50), KEY v (v), FULLTEXT KEY s (s));
      CREATE TABLE u (id INT PRIMARY KEY AUTO_INCREMENT, v INT);
      CREATE TABLE p (a INT) PARTITION BY RANGE (a) (PARTITION p0 VALUES LESS THAN (10));
      CREATE TABLE bare (a INT);
      CREATE TABLE marker (a INT);
      CREATE VIEW v AS SELECT id FROM t;
      CREATE USER bob;
      INSERT INTO t (v, s) VALUES (1, 'one'), (2, 'two');
      INSERT INTO u (v) VALUES (1), (2);
      CREATE FUNCTION f (a INT) RETURNS INT BEGIN SET @called = 1; RETURN a; END;
    `)
    if (server.flavour === 'mariadb') await session.query('CREATE SEQUENCE q')
  })
  afterEach(() => {
    for (const connection of opened.splice(0)) connection.destroy()
  })
  afterAll(async () => {
    session.destroy()
    await server[Symbol.asyncDispose]()
  })

  const isInTransaction = async (connection: Connection): Promise<boolean> => {
    const [header] = await connection.query('DO 0')
    return ((header as { serverStatus: number } & ResultSetHeader).serverStatus & 1) === 1
  }
  const rowsOf = async (connection: Connection, sql: string): Promise<unknown[][]> => {
    const [rows] = await connection.query({ sql, rowsAsArray: true })
    return rows as unknown[][]
  }

  /** Everything that a next borrower could see. Asking gives up the locks held by name, so it is asked for last, and once. */
  const stateOf = async (connection: Connection, withLocks = false): Promise<State> => {
    const transaction = await isInTransaction(connection)
    const [[database]] = (await rowsOf(connection, 'SELECT DATABASE()')) as [[string]]
    const tables: string[] = []
    for (const table of ['t', 'u', 'tmp']) {
      // LOCK TABLES makes it fail, and a temporary table is named as one
      const definition = await rowsOf(connection, `SHOW CREATE TABLE shop.${table}`).catch(({ errno }) => [['', errno]])
      const open = await rowsOf(connection, `SELECT 1 FROM shop.${table} LIMIT 0`).catch(({ errno }) => [errno])
      tables.push(/^CREATE( TEMPORARY)?/.exec(String(definition[0]?.[1]))?.[0] ?? 'none', String(open))
    }
    const variables = await rowsOf(
      connection,
      server.flavour === 'mariadb'
        ? 'SELECT VARIABLE_NAME, VARIABLE_VALUE FROM information_schema.USER_VARIABLES'
        : 'SELECT VARIABLE_NAME, VARIABLE_VALUE FROM performance_schema.user_variables_by_thread WHERE THREAD_ID = PS_CURRENT_THREAD_ID()',
    ).catch(() => [['not to be asked under LOCK TABLES']])
    const system = await rowsOf(connection, 'SHOW SESSION VARIABLES')
    const prepared = await rowsOf(connection, "SHOW GLOBAL STATUS LIKE 'Prepared_stmt_count'")
    const [[locks]] = (withLocks ? await rowsOf(connection, 'SELECT RELEASE_ALL_LOCKS()') : [[0]]) as [[number]]
    return {
      database,
      transaction,
      tables: tables.join(),
      variables: JSON.stringify(variables),
      system: JSON.stringify(system.filter(([name]) => !VOLATILE.test(String(name)))),
      prepared: JSON.stringify(prepared),
      locks,
    }
  }

  test.each(DIRTY)('what is left behind shows: %s', async (sql, where) => {
    expect(shapeOf(sql, server.flavour).leavesState).toBeDefined()
    const connection = await another()
    const before = await stateOf(connection, true)
    await connection.query(sql)
    const after = await stateOf(connection, true)
    if (sql.startsWith('ALTER DATABASE')) await connection.query('ALTER DATABASE shop CHARACTER SET utf8mb4')
    expect(after[where as keyof State]).not.toEqual(before[where as keyof State])
  })

  test('what is clean leaves the session as it was', async () => {
    const good = corpus(CLEAN + CLEAN_ON[server.flavour].trimStart())
    const bad = corpus(FAILING)
    const connection = await another()
    const before = await stateOf(connection)
    for (const sql of [...good, ...bad]) {
      expect([sql, shapeOf(sql, server.flavour).leavesState]).toEqual([sql, undefined])
      const outcome = await connection.query(sql).then(
        () => 'ok',
        (error: Error) => error.message,
      )
      expect([sql, outcome]).toEqual([sql, good.includes(sql) ? 'ok' : expect.not.stringMatching(/^ok$/)])
      expect([sql, await stateOf(connection)]).toEqual([sql, before])
    }
    expect(await stateOf(connection, true)).toEqual({ ...before, locks: 0 })
  })

  test('what leaves a transaction as it is leaves it open and uncommitted', async () => {
    const all = corpus(CLEAN + CLEAN_ON[server.flavour].trimStart() + FAILING.trimStart())
    const open = all.filter((sql) => shapeOf(sql, server.flavour).transaction === 'none')
    const byHand = corpus(TRANSACTION_NONE)
    expect(byHand.filter((sql) => shapeOf(sql).transaction !== 'none')).toEqual([])
    const statements = [...open, ...byHand]
    const connection = await another()
    for (const sql of statements) {
      await connection.query('USE shop; BEGIN; DELETE FROM marker; INSERT INTO marker VALUES (1); SAVEPOINT a')
      await connection.query(sql).catch(() => {})
      expect([sql, await isInTransaction(connection)]).toEqual([sql, true])
      expect([sql, await server.query('SELECT a FROM shop.marker')]).toEqual([sql, []])
      await connection.query('ROLLBACK')
      expect([sql, await server.query('SELECT a FROM shop.marker')]).toEqual([sql, []])
    }
  })

  // --- the scanner against the server's own parser -------------------------------------------------------------------------

  const isCalled = async (connection: Connection, sql: string): Promise<boolean> => {
    await connection.query(sql).catch(() => {})
    const [[called]] = (await rowsOf(connection, 'SELECT @called')) as [[unknown]]
    if (called !== null) await connection.query('SET @called = NULL')
    return called !== null
  }

  test('a name that is listed as built in never means a stored function', async () => {
    const source = readFileSync(new URL('../../src/sql/functions.ts', import.meta.url), 'utf8')
    const lists = source.match(/words\(`[^`]*`\)/g)!.join(' ')
    const names = new Set((lists.match(/\w+/g) ?? []).filter((name) => isBuiltIn(name, false, server.flavour)))
    expect(names.size).toBeGreaterThan(400)
    await server.query('CREATE DATABASE names')
    const connection = await another()
    await connection.query('USE names')
    const declare = (name: string): Promise<unknown> =>
      connection.query(
        `CREATE FUNCTION \`${name}\` (a INT) RETURNS INT BEGIN SET @called = CONCAT_WS(' ', @called, '${name}'); RETURN 1; END`,
      )
    const use = (call: string): Promise<unknown> => connection.query(`SELECT ${call}`).catch(() => {})
    await declare('plain')
    await use('plain(0)')
    for (const name of names) {
      await declare(name)
      await use(`${name}(0)`)
      if (isBuiltIn(name, true, server.flavour)) await use(`${name} (0)`)
    }
    const [[called]] = (await rowsOf(connection, 'SELECT @called')) as [[unknown]]
    expect(String(called)).toBe('plain')
  })

  test('what is no call to the scanner is none to the server', async () => {
    const connection = await another()
    let clean = 0
    for (const frame of FRAMES.trim().split('\n')) {
      for (const word of NO_CALL_AFTER.split(' ')) {
        const sql = frame.replace('~', `${word} f(1)`)
        if (shapeOf(sql, server.flavour).leavesState !== undefined) continue
        clean++
        expect([sql, await isCalled(connection, sql)]).toEqual([sql, false])
      }
    }
    expect(clean).toBeGreaterThan(200)
  })

  const modes = ['', 'ANSI_QUOTES', 'NO_BACKSLASH_ESCAPES', 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES', 'IGNORE_SPACE']
  test.each(kind.startsWith('mariadb') ? [...modes, 'ORACLE'] : modes)(
    'the scanner reads quotes and comments as the server does: sql_mode %s',
    async (mode) => {
      const pieces = ["'", '"', '`', '\\', ' -- ', '#', '\n', '/*', '*/', ' ', 'a', '1.', '1e1', 'AS ']
      const harm = ['@called := 1', 'f(1)', 'f (1)', 'shop.f(1)', '`f`(1)'].map((call) => `, ${call}`)
      const ends = ['', "'", '"', "''", '""', ' -- ', '#', "' -- '", '" -- "', "' #", '" #']
      const part = fc.oneof(
        { weight: 8, arbitrary: fc.constantFrom(...pieces) },
        { weight: 1, arbitrary: fc.constantFrom(...harm) },
      )
      const text = fc.tuple(
        fc.array(part, { maxLength: 8 }),
        fc.constantFrom(...harm),
        fc.array(part, { maxLength: 5 }),
        fc.constantFrom(...ends),
      )
      const texts = fc.sample(
        text.map((parts) => `SELECT 1,${parts.flat().join('')}`),
        { numRuns: 1000, seed: 7 },
      )
      const connection = await another(mode)
      let [clean, calledAndDoubted] = [0, 0]
      for (const sql of texts) {
        if (shapeOf(sql, server.flavour).leavesState === undefined) {
          clean++
          expect([sql, await isCalled(connection, sql)]).toEqual([sql, false])
        } else if (calledAndDoubted < 5 && (await isCalled(connection, sql))) calledAndDoubted++
      }
      expect(clean).toBeGreaterThan(100)
      expect(calledAndDoubted).toBe(5) // texts that the server runs are among them
    },
  )
})
