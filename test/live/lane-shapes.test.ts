import { chmodSync, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { createConnection, type Connection, type ResultSetHeader } from 'mysql2/promise'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { Flavour } from '../../src/driver.js'
import { shapeOf } from '../../src/sql/shape.js'
import { availableServers, startServer, type TestServer } from '../../src/testing/server.js'

/** What shape sends to a lane, and every server can run. In these lists a bar ends a statement as a line does. */
const READS = `
SELECT 1 | SELECT 1; | SELECT id, v, s FROM t WHERE v IN (1, 2) AND id > 0 ORDER BY id LIMIT 10
SELECT * FROM t WHERE s = 'x' OR s = "y" OR s LIKE 'a%' | SELECT DISTINCT v FROM t
SELECT SQL_NO_CACHE HIGH_PRIORITY STRAIGHT_JOIN v FROM t
SELECT SQL_BIG_RESULT SQL_BUFFER_RESULT v FROM t GROUP BY v WITH ROLLUP
SELECT COUNT(*), MAX(v), GROUP_CONCAT(DISTINCT v ORDER BY v SEPARATOR ',') FROM t GROUP BY s HAVING COUNT(*) > 0
SELECT t.id, u.v FROM t JOIN u ON t.id = u.id LEFT JOIN (SELECT 1 AS a) AS d ON d.a = t.v ORDER BY 1, 2
SELECT * FROM t NATURAL JOIN u | SELECT * FROM t CROSS JOIN u ORDER BY t.id, u.id
SELECT id FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.id = t.id) AND v = ANY (SELECT v FROM u)
SELECT id FROM t WHERE (id, v) IN ((1, 1), (2, 2)) | SELECT (SELECT MAX(v) FROM u) AS m, t.* FROM t ORDER BY id
SELECT id FROM t USE INDEX (v) WHERE v = 1 | SELECT id FROM t FORCE INDEX FOR ORDER BY (v) ORDER BY v
SELECT t.id FROM t IGNORE INDEX FOR JOIN (v), u WHERE t.id = u.id | SELECT id FROM t WHERE MATCH (s) AGAINST ('one')
SELECT id FROM t WHERE MATCH (s) AGAINST ('+one' IN BOOLEAN MODE) | SELECT a FROM p PARTITION (p0) | SELECT * FROM v
SELECT * FROM m | SELECT \`update\`, \`lock\`, \`into\` FROM \`for share\`
SELECT k.update, k .lock, k.into FROM \`for share\` AS k | SELECT share, sleep, row_count FROM k
(SELECT 1) UNION ALL (SELECT 2) EXCEPT (SELECT 3) | SELECT id FROM t UNION SELECT id FROM u ORDER BY id LIMIT 3
WITH x AS (SELECT 1 AS a) SELECT * FROM x
WITH RECURSIVE x(a) AS (SELECT 1 UNION SELECT a + 1 FROM x WHERE a < 50) SELECT SUM(a) FROM x
WITH x AS (SELECT id FROM t), y (b) AS (SELECT MAX(id) FROM x) SELECT * FROM x, y
SELECT ROW_NUMBER() OVER (ORDER BY id), SUM(v) OVER w, LAG(v) OVER w FROM t WINDOW w AS (PARTITION BY v ORDER BY id)
SELECT SUBSTRING('abc' FROM 1 FOR 2), TRIM(BOTH 'x' FROM 'xax'), EXTRACT(DAY FROM '2020-01-02')
SELECT @@version, @@version_comment, @@max_allowed_packet, @@session.sql_mode, @@local.time_zone, @@system_time_zone
SELECT @@autocommit, @@character_set_client, @@collation_connection, @@wait_timeout, @@lower_case_table_names, @@port
SELECT @@global.max_connections, @@global.read_only, @@GLOBAL . sort_buffer_size, @@hostname, @@datadir
SELECT 1 /* a comment */ -- and another | SELECT 1 # one more | /* trace */ SELECT id FROM t -- GET_LOCK('a', 1)
SELECT '@a', 'it''s', N'e', _utf8mb4'f', x'40', b'01', 0x40, 1.5e-3, .5, -1--1, 'a\\\\', '{\\"a\\": 1}', 'It\\'s'
SELECT 'FOR UPDATE', 'INTO @a', 'SLEEP(1)', "LOCK IN SHARE MODE"
SELECT DATE'2020-01-01', TIMESTAMP'2020-01-01 00:00:00', { d '2020-01-01' }, { fn ABS(1) }
SELECT CAST('nonsense' AS SIGNED), 1 / 0, CAST('x' AS DATE) | SELECT REPEAT('x', 100000)
SELECT a.id FROM t a, t b, t c, t d, t e ORDER BY RAND() LIMIT 1
SELECT SCHEMA_NAME FROM information_schema.SCHEMATA ORDER BY 1
SELECT TABLE_NAME, ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'shop' ORDER BY 1
SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_NAME = 't' ORDER BY 1
SELECT INDEX_NAME FROM information_schema.STATISTICS WHERE TABLE_NAME = 't' ORDER BY 1
SELECT ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = 'shop' ORDER BY 1
SELECT User FROM mysql.user ORDER BY 1
SHOW DATABASES | SHOW SCHEMAS LIKE 's%' | SHOW TABLES | SHOW FULL TABLES FROM shop LIKE 't%'
SHOW TABLES WHERE Tables_in_shop = 't' | SHOW TABLE STATUS LIKE 'k' | SHOW OPEN TABLES FROM mysql LIKE 'none'
SHOW COLUMNS FROM t | SHOW FULL COLUMNS FROM t FROM shop | SHOW FIELDS FROM t | SHOW INDEX FROM t | SHOW KEYS FROM u
SHOW CREATE TABLE t | SHOW CREATE VIEW v | SHOW CREATE DATABASE shop | SHOW CREATE FUNCTION f | SHOW TRIGGERS
SHOW EVENTS | SHOW FUNCTION STATUS LIKE 'f' | SHOW ENGINES | SHOW STORAGE ENGINES | SHOW PLUGINS | SHOW PRIVILEGES
SHOW CHARACTER SET | SHOW COLLATION LIKE 'utf8mb4%' | SHOW GRANTS | SHOW GRANTS FOR bob
SHOW GLOBAL VARIABLES LIKE 'max_connections' | SHOW GLOBAL STATUS LIKE 'Nonesuch%'
EXPLAIN SELECT * FROM t WHERE id = 1 | EXPLAIN SELECT * FROM t WHERE id = (SELECT MAX(id) FROM u)
EXPLAIN FORMAT=JSON SELECT * FROM t | EXPLAIN (SELECT 1) UNION (SELECT 2)
EXPLAIN WITH x AS (SELECT 1) SELECT * FROM x | EXPLAIN t | DESCRIBE t | DESC t id | DESCRIBE shop.t 's%'
HELP 'select'
`

const READS_ON: Record<Flavour, string> = {
  mariadb: `
SELECT NVL(v, 1), MEDIAN(v) OVER (PARTITION BY id), MD5('a'), SHA1('a'), CHR(65), TO_CHAR('2020-01-01', 'YYYY') FROM t
SELECT * FROM h FOR SYSTEM_TIME ALL | SELECT * FROM h FOR SYSTEM_TIME AS OF NOW()
SELECT * FROM h FOR SYSTEM_TIME BETWEEN '2020-01-01' AND NOW() | SELECT * FROM q
SELECT * FROM (SELECT 1) AS d JOIN JSON_TABLE('[1]', '$[*]' COLUMNS(id INT PATH '$', n FOR ORDINALITY)) AS j
VALUES (1, 2), (3, 4) | SELECT v FROM t LIMIT ROWS EXAMINED 100 | SELECT \\N | SELECT SQL_CACHE v FROM t
SELECT COLUMN_JSON(COLUMN_CREATE('a', 1)), ENCODE('a', 'b'), OLD_PASSWORD('a'), JSON_DETAILED('[1]')
EXPLAIN EXTENDED SELECT 1 | EXPLAIN PARTITIONS SELECT * FROM p | SHOW CREATE SEQUENCE q
SELECT * FROM information_schema.APPLICABLE_ROLES
`,
  mysql: `
SELECT BIN_TO_UUID(UUID_TO_BIN('12345678-1234-1234-1234-123456789012')), ANY_VALUE(v), REGEXP_LIKE('a', 'b') FROM t
SELECT ST_ASTEXT(POINT(1, 1)), IS_UUID('a'), FORMAT_BYTES(1), RANDOM_BYTES(1), JSON_OVERLAPS('1', '1')
SELECT * FROM JSON_TABLE('[1]', '$[*]' COLUMNS(id INT PATH '$', n FOR ORDINALITY, NESTED PATH '$.x' COLUMNS (y INT PATH '$'))) AS j
SELECT * FROM t, LATERAL (SELECT t.v) AS l (a) ORDER BY id
SELECT 1 MEMBER OF('[1]'), STATEMENT_DIGEST_TEXT('SELECT 1'), GTID_SUBSET('', ''), ICU_VERSION()
VALUES ROW(1, 2), ROW(3, 4) | TABLE t ORDER BY id LIMIT 2 | (TABLE t) UNION (TABLE t) ORDER BY 1
SELECT /*+ MAX_EXECUTION_TIME(1000) NO_INDEX_MERGE(t) */ id FROM t
SELECT /*+ BKA(t) JOIN_ORDER(u, t) */ t.id FROM t JOIN u ON t.id = u.id ORDER BY 1
EXPLAIN FORMAT=TREE SELECT * FROM t | EXPLAIN TABLE t | SHOW EXTENDED COLUMNS FROM t
SHOW EXTENDED FULL TABLES LIKE 't' | SELECT GROUPING(v) FROM t GROUP BY v WITH ROLLUP
`,
}

/** Expressions, each of which is put into several of the places below. */
const EXPRESSIONS = `
v + 1 | -v * 2 % 3 DIV 1 | v BETWEEN (1) AND (2) | v IS NULL | NOT (v = 1) XOR v | s LIKE 'a\\\\_%' ESCAPE '!'
s REGEXP '^a' | s COLLATE utf8mb4_bin | v IN (1, 2, (SELECT 3)) | CASE v WHEN (1) THEN 'a' ELSE 'b' END | IF(v, 1, 2)
IFNULL(v, NULLIF(v, 1)) | COALESCE(s, 'x') | CAST(v AS CHAR(10)) | CONVERT(v, DECIMAL(10, 2))
CONVERT(s USING latin1) | CONCAT(s, 'x', v) | CONCAT_WS(',', s, NULL, v) | REPLACE(s, 'o', '0')
INSERT(s, 1, 1, 'z') | SUBSTRING_INDEX(s, 'n', 1) | LPAD(s, 10, '-') | FORMAT(v, 2) | HEX(s) | SHA2(s, 256)
CRC32(s) | AES_ENCRYPT(s, 'k') | TO_BASE64(s) | COMPRESS(s) | REGEXP_REPLACE(s, 'a', 'b') | SOUNDEX(s) | CHARSET(s)
COERCIBILITY(s) | WEIGHT_STRING(s) | FIELD(v, 1, 2) | ELT(v, 'a', 'b') | GREATEST(v, 2) | ROUND(v / 3, 2) | POW(v, 2)
CONV(v, 10, 2) | RAND() | RAND(v) | UUID() | UUID_SHORT() | NOW() | SYSDATE() | CURRENT_TIMESTAMP(6) | CURRENT_DATE
UTC_TIMESTAMP | UNIX_TIMESTAMP() | FROM_UNIXTIME(v) | DATE_ADD('2020-01-01', INTERVAL v DAY)
'2020-01-01' + INTERVAL (1 + 1) DAY | DATE_FORMAT('2020-01-01', '%Y') | STR_TO_DATE('2020', '%Y')
TIMESTAMPDIFF(DAY, '2020-01-01', '2020-02-01') | CONVERT_TZ('2020-01-01', '+00:00', '+01:00')
EXTRACT(DAY FROM '2020-01-02') | DATABASE() | USER() | CURRENT_USER() | CURRENT_USER | SESSION_USER() | SYSTEM_USER()
CURRENT_ROLE() | VERSION() | CHARSET(DATABASE()) | INET6_NTOA(INET6_ATON('::1')) | JSON_OBJECT('a', v)
JSON_EXTRACT('{"a": 1}', '$.a') | JSON_SET('{}', '$.a', v) | JSON_CONTAINS('[1]', '1')
EXTRACTVALUE('<a>b</a>', '/a') | UPDATEXML('<a/>', '/a', '<b/>') | ST_ASTEXT(ST_GEOMFROMTEXT('POINT(1 1)'))
LOAD_FILE('/nowhere') | NAME_CONST('a', 1) | @@version | @@session.sql_mode | @@global.max_connections
(SELECT MAX(id) FROM u) | EXISTS (SELECT 1 FROM u) | 'GET_LOCK(1, 1)' | 'x' -- SLEEP(1)
`

const PLACES = [
  'SELECT ~\n AS x FROM t ORDER BY id',
  'SELECT id FROM t WHERE ~\n IS NOT NULL ORDER BY id',
  'SELECT COUNT(*) FROM t GROUP BY v, s HAVING v = 1 OR ~\n IS NULL',
  'SELECT x FROM (SELECT ~\n AS x FROM t ORDER BY id LIMIT 1) AS d',
  'WITH c AS (SELECT ~\n AS x FROM t WHERE id = 1) SELECT x FROM c',
  'SELECT id FROM t WHERE id = 1 UNION SELECT HEX(~\n) FROM t WHERE id = 2',
  'SELECT t.id FROM t JOIN (SELECT 1 AS one) AS o ON ~\n IS NOT NULL ORDER BY id',
  'EXPLAIN SELECT ~\n FROM t',
]

/** Whose answers differ from one time to the next. */
const MOVING =
  /RAND|UUID|NOW\(|SYSDATE|CURRENT_|UTC_|UNIX_TIME|FROM_UNIX|RANDOM|SHOW (GLOBAL STATUS|OPEN|TABLE ST)|EXPLAIN/

type Part = 'variables' | 'system' | 'session' | 'transaction' | 'tables' | 'prepared' | 'locks' | 'handler'

/** What shape keeps off a lane, although READ ONLY would let it be, and what of the session would then be different. */
const STATE: [string, Part, (Flavour | undefined)?][] = [
  ['SET @a = 1', 'variables'],
  ['SELECT @a := 1', 'variables'],
  ['SELECT 1 INTO @a', 'variables'],
  ['SELECT id FROM t WHERE id = 1 INTO @a', 'variables'],
  ['(SELECT 1) UNION (SELECT 1) LIMIT 1 INTO @a', 'variables', 'mysql'],
  ['DO @a := 1', 'variables'],
  ['SELECT f(1)', 'variables'],
  ['CALL r()', 'variables'],
  ['EXPLAIN FORMAT=JSON INTO @a SELECT 1', 'variables', 'mysql'],
  ['SELECT LAST_INSERT_ID(77)', 'system'],
  ['DO LAST_INSERT_ID(78)', 'system'],
  ["SET SESSION sql_mode = ''", 'system'],
  ['SET NAMES latin1', 'system'],
  ['SET SESSION TRANSACTION READ WRITE', 'system'],
  ['SET autocommit = 0', 'system'],
  ['USE other', 'session'],
  ['SET ROLE reader', 'session'],
  ["SELECT GET_LOCK('a', 0)", 'locks'],
  ["DO GET_LOCK('a', 0)", 'locks'],
  ['BEGIN', 'transaction'],
  ['START TRANSACTION READ ONLY', 'transaction'],
  ['LOCK TABLES t READ', 'tables'],
  ["PREPARE x FROM 'SELECT 1'", 'prepared'],
  ['HANDLER t OPEN', 'handler'],
  ['SELECT 1; SET @a = 1', 'variables'],
  ['SELECT 1 /*!, @a := 1 */', 'variables'],
]

/** What waits for a while, on a session that others want to use. */
const WAITING = ['SELECT SLEEP(0.2)', 'SELECT id FROM t WHERE id = 1 AND sleep (0.2) = 0', 'DO SLEEP(0.2)']

/** What waits for a row that somebody else has changed; here it is told not to wait, or not for long. */
const LOCKING: Record<Flavour, string[]> = {
  mariadb: ['SELECT * FROM t LOCK IN SHARE MODE NOWAIT', 'SELECT (SELECT s FROM t WHERE id = 1 LOCK IN SHARE MODE)'],
  mysql: [
    'SELECT * FROM t FOR SHARE NOWAIT',
    'WITH x AS (SELECT v FROM t FOR SHARE NOWAIT) SELECT * FROM x',
    'TABLE t FOR SHARE NOWAIT',
    'SELECT * FROM t LOCK IN SHARE MODE',
  ],
}

/** Its answer is another one on every session, on a lane, or after a statement of somebody else. */
const TELLING: [string, Flavour?][] = [
  ['SELECT CONNECTION_ID()'],
  ['SELECT @@pseudo_thread_id'],
  ['SELECT FOUND_ROWS()'],
  ['SELECT LAST_INSERT_ID()'],
  ['SELECT @@last_insert_id'],
  ['SELECT @@identity'],
  ['SELECT @@warning_count'],
  ['SHOW WARNINGS'],
  ['SHOW COUNT(*) WARNINGS'],
  ['SELECT ROW_COUNT()'],
  ["SHOW VARIABLES LIKE 't%_read_only'"],
  ["SHOW SESSION STATUS LIKE 'Questions'"],
  ['SHOW PROCESSLIST'],
  ["SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE '%this one%'"],
  ['SELECT @@transaction_read_only', 'mysql'],
  ['SELECT PS_CURRENT_THREAD_ID()', 'mysql'],
  ["SELECT VARIABLE_VALUE FROM performance_schema.session_variables WHERE VARIABLE_NAME = 'pseudo_thread_id'", 'mysql'],
  ['SELECT @@tx_read_only', 'mariadb'],
  ['SELECT LASTVAL(q)', 'mariadb'],
  ['SELECT PREVIOUS VALUE FOR q', 'mariadb'],
]

/** What READ ONLY stops, on both. */
const REFUSED = `
INSERT INTO t (v) VALUES (1) | INSERT INTO t (v) SELECT v FROM u | REPLACE INTO t (id, v) VALUES (1, 1)
UPDATE t SET v = 1 | DELETE FROM t | TRUNCATE t | CREATE TABLE n (a INT) | ALTER TABLE t ADD n INT | DROP TABLE t
CREATE VIEW n AS SELECT 1 | CREATE DATABASE n | CREATE USER n | GRANT SELECT ON t TO bob | RENAME TABLE t TO n
SELECT * FROM t FOR UPDATE | SELECT * FROM (SELECT * FROM t FOR UPDATE) AS d
WITH x AS (SELECT * FROM t FOR UPDATE) SELECT * FROM x | (SELECT 1) UNION (SELECT id FROM t FOR UPDATE)
LOCK TABLES t WRITE | FLUSH TABLES t WITH READ LOCK | CREATE TEMPORARY TABLE tmp (a INT)
`

/** What writes. The text tells it of the first ones only, the server of all. */
const WRITING = [
  'SELECT writes(1)',
  'SELECT * FROM t WHERE id = writes(1)',
  'SELECT * FROM writer',
  'SELECT w FROM writer2',
]
const WRITING_ON: Record<Flavour, string[]> = {
  mariadb: ['SELECT NEXTVAL(q)', 'SELECT NEXT VALUE FOR q', 'SELECT * FROM counter', 'SELECT SETVAL(q, 100)'],
  mysql: [],
}

/**
 * These change with every statement, or with the clock; a caller who cares for them does not send a statement at a time
 * to a pool. The seeds are used up by RAND().
 */
const VOLATILE = /^(timestamp|error_count|warning_count|rand_seed\d|statement_id)$/i

function lines(text: string): string[] {
  return text.trim().split(/\n| \| /)
}

describe.each(availableServers())('%s', (kind) => {
  let server: TestServer
  const opened: Connection[] = []
  const open = async (isLane = true): Promise<Connection> => {
    const where = { host: server.host, port: server.port, user: 'root', database: 'shop' }
    const connection = await createConnection({ ...where, multipleStatements: true, rowsAsArray: true })
    opened.push(connection)
    await connection.query('SET SESSION innodb_lock_wait_timeout = 1, SESSION lock_wait_timeout = 1')
    if (isLane) await connection.query('SET SESSION TRANSACTION READ ONLY')
    return connection
  }
  const lane = (sql: string): string | undefined => shapeOf(sql, server.flavour).lane
  const rowsOf = async (connection: Connection, sql: string): Promise<unknown[][]> => {
    const [rows] = await connection.query(sql)
    return rows as unknown[][]
  }
  /** What a statement answers, or why it failed. */
  const answerOf = (connection: Connection, sql: string): Promise<string> =>
    rowsOf(connection, sql).then(
      (rows) => JSON.stringify(rows),
      (error: Error & { errno?: number }) => `${error.errno} ${error.message}`,
    )

  beforeAll(async () => {
    server = await startServer(kind, { flags: ['--log-bin-trust-function-creators=1', '--secure-file-priv='] })
    for (const sql of ['CREATE DATABASE shop CHARACTER SET utf8mb4', 'CREATE DATABASE other']) await server.query(sql)
    const session = await open(false)
    await session.query(`
      CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v INT DEFAULT 3, s VARCHAR(50), KEY v (v), FULLTEXT KEY s (s));
      CREATE TABLE u (id INT PRIMARY KEY AUTO_INCREMENT, v INT);
      CREATE TABLE m (a INT) ENGINE = MyISAM;
      CREATE TABLE k (share INT, sleep INT, row_count INT);
      CREATE TABLE \`for share\` (\`update\` INT, \`lock\` INT, \`into\` INT);
      CREATE TABLE p (a INT) PARTITION BY RANGE (a) (PARTITION p0 VALUES LESS THAN (10));
      CREATE TABLE written (a INT);
      CREATE VIEW v AS SELECT id FROM t;
      CREATE USER bob;
      INSERT INTO t (v, s) VALUES (1, 'one'), (2, 'two'), (NULL, NULL);
      INSERT INTO u (v) VALUES (1), (2);
      INSERT INTO k VALUES (1, 2, 3);
      CREATE FUNCTION f (a INT) RETURNS INT BEGIN SET @called = 1; RETURN a; END;
      CREATE FUNCTION writes (a INT) RETURNS INT BEGIN INSERT INTO written VALUES (a); RETURN a; END;
      CREATE FUNCTION takes (a INT) RETURNS INT RETURN GET_LOCK('a', 0);
      CREATE PROCEDURE r () SET @called = 1;
      CREATE VIEW writer AS SELECT writes(1) AS w;
      CREATE VIEW writer2 AS SELECT w FROM writer WHERE w IN (SELECT w FROM writer);
      CREATE VIEW locker AS SELECT takes(1) AS w;
    `)
    await session.query('CREATE ROLE reader')
    if (server.flavour === 'mysql') {
      const [[self]] = (await rowsOf(session, "SELECT CONCAT('`', REPLACE(CURRENT_USER(), '@', '`@`'), '`')")) as [
        [string],
      ]
      await session.query(`GRANT reader TO ${self}`)
    } else
      await session.query(`
        CREATE SEQUENCE q;
        CREATE TABLE h (a INT) WITH SYSTEM VERSIONING;
        INSERT INTO h VALUES (1);
        CREATE VIEW counter AS SELECT NEXTVAL(q) AS w;
      `)
  })
  afterEach(() => {
    for (const connection of opened.splice(0)) connection.destroy()
  })
  afterAll(async () => {
    await server[Symbol.asyncDispose]()
  })

  /** Everything that the next caller on this session could see. */
  const stateOf = async (connection: Connection): Promise<Record<Part, string>> => {
    const [header] = await connection.query('DO 0')
    const userVariables =
      server.flavour === 'mariadb'
        ? 'information_schema.USER_VARIABLES'
        : 'performance_schema.user_variables_by_thread WHERE THREAD_ID = PS_CURRENT_THREAD_ID()'
    const questions = `
      SHOW SESSION VARIABLES; SHOW GLOBAL STATUS LIKE 'Prepared_stmt_count';
      SELECT DATABASE(), CONNECTION_ID(), CURRENT_ROLE(), USER(), LAST_INSERT_ID();
      SELECT IS_USED_LOCK('a') = CONNECTION_ID(), IS_USED_LOCK('b') = CONNECTION_ID()`
    const [system = [], ...more] = (await rowsOf(connection, questions)) as unknown[][][]
    const quoted = more.map((rows) => JSON.stringify(rows))
    return {
      system: JSON.stringify(system.filter(([name]) => !VOLATILE.test(String(name)))),
      prepared: quoted[0]!,
      session: quoted[1]!,
      locks: quoted[2]!,
      transaction: String((header as { serverStatus: number } & ResultSetHeader).serverStatus & 1),
      variables: await answerOf(connection, `SELECT VARIABLE_NAME, VARIABLE_VALUE FROM ${userVariables}`),
      // LOCK TABLES makes the second one fail
      tables: `${await answerOf(connection, 'SELECT * FROM tmp')} ${await answerOf(connection, 'SELECT a FROM p LIMIT 0')}`,
      handler: await answerOf(connection, 'HANDLER t READ FIRST'),
    }
  }

  test('what is for a lane leaves it as it was, and is answered there as anywhere', async () => {
    const expressions = lines(EXPRESSIONS)
    const made = expressions.flatMap((expression, i) =>
      [0, 1, 2, 3].map((step) => PLACES[(i + step * 2 + (i >> 3)) % PLACES.length]!.replace('~', () => expression)),
    )
    const statements = [...new Set([...lines(READS), ...lines(READS_ON[server.flavour]), ...made])]
    expect(statements.length).toBeGreaterThan(400)
    expect(statements.filter((sql) => lane(sql) !== undefined)).toEqual([])
    const [shared, own] = [await open(), await open(false)]
    const before = await stateOf(shared)
    const failed: string[] = []
    for (const sql of statements) {
      const answer = await answerOf(shared, sql)
      if (/^\d/.test(answer)) failed.push(`${sql}: ${answer}`)
      expect([sql, await stateOf(shared)]).toEqual([sql, before])
      if (!MOVING.test(sql)) expect([sql, answer]).toEqual([sql, await answerOf(own, sql)])
    }
    expect(failed).toEqual([])
  })

  test.each(STATE.filter(([, , only = '']) => kind.startsWith(only)))(
    'no lane for what leaves a trace: %s',
    async (sql, part) => {
      expect(lane(sql)).toBeDefined()
      const shared = await open()
      const before = await stateOf(shared)
      await shared.query(sql)
      expect((await stateOf(shared))[part]).not.toEqual(before[part])
    },
  )

  test('no lane for what waits', async () => {
    const shared = await open()
    for (const sql of WAITING) {
      expect([sql, lane(sql)]).not.toEqual([sql, undefined])
      const started = performance.now()
      await shared.query(sql)
      expect(performance.now() - started, sql).toBeGreaterThan(190)
    }
  })

  test('no lane for what waits for the locks of others', async () => {
    const [shared, other] = [await open(), await open(false)]
    await other.query('BEGIN; UPDATE t SET v = v + 1')
    for (const sql of LOCKING[server.flavour]) {
      expect([sql, lane(sql)]).not.toEqual([sql, undefined])
      expect([sql, await answerOf(shared, sql)]).toEqual([sql, expect.stringMatching(/^(1205|3572) /)])
    }
    expect(await answerOf(shared, 'SELECT COUNT(*) FROM t')).toBe('[[3]]')
  })

  test('no lane for what makes others wait', async () => {
    const [shared, other] = [await open(), await open(false)]
    expect(lane('FLUSH TABLES WITH READ LOCK')).toBeDefined()
    await shared.query('FLUSH TABLES WITH READ LOCK')
    expect(await answerOf(other, 'INSERT INTO written VALUES (1)')).toMatch(/^1205 /)
  })

  test('no lane for what asks about its own session', async () => {
    const [shared, own] = [await open(), await open(false)]
    const setUp = server.flavour === 'mariadb' ? 'DO NEXTVAL(q); ' : ''
    for (const [sql, only] of TELLING) {
      if (only && only !== server.flavour) continue
      expect([sql, lane(sql)]).not.toEqual([sql, undefined])
      const answers = new Set<string>()
      await shared.query('SELECT 1')
      answers.add(await answerOf(shared, sql))
      await own.query("SELECT CAST('x' AS SIGNED) FROM t")
      answers.add(await answerOf(own, sql))
      await own.query(`${setUp}INSERT INTO u (v) VALUES (9)`)
      answers.add(await answerOf(own, sql))
      expect([sql, answers.size]).not.toEqual([sql, 1])
    }
  })

  test('no lane for what writes a file', async () => {
    const shared = await open()
    const directory = mkdtempSync(join(tmpdir(), 'holdfast-lane-'))
    chmodSync(directory, 0o777)
    try {
      for (const [i, into] of ['INTO OUTFILE', 'INTO DUMPFILE', '.INTO OUTFILE'].entries()) {
        const file = join(directory, String(i))
        // the driver puts a number there, and then it is no longer a name
        const sql = into.startsWith('.') ? `SELECT ?${into} '${file}'` : `SELECT 1 ${into} '${file}'`
        expect([sql, lane(sql)]).toEqual([sql, 'INTO'])
        await shared.query(sql, [1])
        expect([sql, existsSync(file)]).toEqual([sql, true])
      }
    } finally {
      rmSync(directory, { recursive: true })
    }
  })

  const modes = ['', 'ANSI_QUOTES', 'NO_BACKSLASH_ESCAPES', 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES', 'IGNORE_SPACE']
  test.each(kind.startsWith('mariadb') ? [...modes, 'ORACLE'] : modes)(
    'the text is read as the server reads it: sql_mode %s',
    async (mode) => {
      const harm = ['LAST_INSERT_ID(77)', 'last_insert_id\n (77)', '(SELECT LAST_INSERT_ID(77))'].map(
        (call) => `, ${call}`,
      )
      const part = fc.oneof(
        {
          weight: 8,
          arbitrary: fc.constantFrom(...`' " \` \\ # /* */ a 1. 1e1 AS @@version. ?`.split(' '), ' -- ', '\n', ' '),
        },
        { weight: 1, arbitrary: fc.constantFrom(...harm) },
      )
      const end = fc.constantFrom('', "'", '"', "''", ' -- ', '#', "' -- '", '" -- "', "' #", '" #')
      const text = fc.tuple(
        fc.array(part, { maxLength: 8 }),
        fc.constantFrom(...harm),
        fc.array(part, { maxLength: 5 }),
        end,
      )
      const texts = fc.sample(
        text.map((parts) => `SELECT 1,${parts.flat().join('')}`),
        { numRuns: 1000, seed: 11 },
      )
      const shared = await open()
      await shared.query('SET SESSION sql_mode = ?', [mode])
      const isHarmed = async (sql: string): Promise<boolean> => {
        await answerOf(shared, sql)
        return (await answerOf(shared, 'SELECT LAST_INSERT_ID(), LAST_INSERT_ID(0)')).startsWith('[[77')
      }
      let [forLanes, harmed] = [0, 0]
      for (const sql of texts) {
        if (lane(sql) === undefined) {
          forLanes++
          expect([sql, await isHarmed(sql)]).toEqual([sql, false])
        } else if (harmed < 5 && (await isHarmed(sql))) harmed++
      }
      expect(forLanes).toBeGreaterThan(50)
      expect(harmed).toBe(5) // texts that the server runs are among them
    },
  )

  test('no lane for what the server refuses to a session that is READ ONLY', async () => {
    const [shared, own] = [await open(), await open(false)]
    for (const sql of lines(REFUSED)) {
      expect([sql, lane(sql)]).not.toEqual([sql, undefined])
      expect([sql, await answerOf(shared, sql)]).toEqual([sql, expect.stringMatching(/^1792 /)])
    }
    expect(await answerOf(own, 'SELECT COUNT(*) FROM t')).toBe('[[3]]')
    expect(await answerOf(own, 'SELECT COUNT(*) FROM written')).toBe('[[0]]')
  })

  test('what writes without a word about it is refused by the server, and has no effect', async () => {
    const [shared, own] = [await open(), await open(false)]
    const effects = async (): Promise<string> => {
      const written = await answerOf(own, 'SELECT COUNT(*) FROM written')
      if (server.flavour === 'mysql') return written
      const next = /\d+/.exec(await answerOf(own, 'SELECT NEXTVAL(q)'))
      return `${written} ${Number(next) - ++asked}`
    }
    let asked = 0
    const before = await effects()
    const statements = [...WRITING, ...WRITING_ON[server.flavour]]
    expect(statements.filter((sql) => lane(sql) === undefined).length).toBeGreaterThan(1)
    for (const sql of statements) {
      const state = await stateOf(shared)
      expect([sql, await answerOf(shared, sql)]).toEqual([sql, expect.stringMatching(/^1792 /)])
      expect([sql, await stateOf(shared)]).toEqual([sql, state])
      expect([sql, await effects()]).toEqual([sql, before])
    }
    for (const sql of statements) {
      const now = await effects()
      expect([sql, await answerOf(own, sql)]).toEqual([sql, expect.stringMatching(/^\[/)])
      expect([sql, await effects()]).not.toEqual([sql, now])
    }
    await own.query('TRUNCATE written')
  })

  test('a lock that a function behind a view takes is the one thing that neither the text nor the server tells', async () => {
    const shared = await open()
    const before = await stateOf(shared)
    expect(lane('SELECT * FROM locker')).toBeUndefined()
    await shared.query('SELECT * FROM locker')
    expect((await stateOf(shared)).locks).not.toBe(before.locks)
  })
})
