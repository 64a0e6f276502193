/**
 * What a statement does to the transaction that is open when it runs. `none`: nothing; it stays open and uncommitted
 * (unless the statement fails: a deadlock). `begins`: opens one, after committing an open one. `ends`: COMMIT or
 * ROLLBACK. `commits`: may commit it on the way, as DDL does. `unknown`: there is no telling from the text.
 */
export type TransactionEffect = 'none' | 'begins' | 'ends' | 'commits' | 'unknown'

interface Verdict {
  /** Why the session may be different afterwards. */
  readonly leaves: string | undefined
  readonly transaction: TransactionEffect
  /** Why no lane may run it, although it leaves nothing behind. */
  readonly lane: string | undefined
}

/** `words` are the statement's further words in lower case; a quoted name or a double-quoted string is `"`. */
type Rule = Verdict | ((words: readonly string[]) => Verdict)

/** What a statement's verb says about it. */
export function ruleOf(verb: string): Rule {
  return RULES.get(verb) ?? leaves('unknown statement', 'unknown')
}

const clean: Verdict = leaves(undefined, 'none')
const commits: Verdict = leaves(undefined, 'commits')
const read: Verdict = { ...clean, lane: undefined }

/**
 * What LAST_INSERT_ID(), FOUND_ROWS(), ROW_COUNT() and SHOW WARNINGS answer is not counted as left behind: every INSERT
 * or SELECT changes it, so nobody can mean anything by asking for it before a statement of his own. Hence
 * LAST_INSERT_ID(expr), SQL_CALC_FOUND_ROWS and NEXTVAL are clean.
 */
const RULES: ReadonlyMap<string, Rule> = new Map<string, Rule>([
  ...each('select table values help', read),
  ['show', showRule],
  ...each('explain describe desc', explainRule),
  ...each('insert update delete replace do checksum kill', clean),
  ...each('rename truncate optimize repair check grant revoke', commits),
  // MariaDB's ANALYZE runs the statement that follows; ANALYZE TABLE commits
  ['analyze', ([what]) => (is(what, 'select update delete insert replace with format') ? clean : commits)],
  ['create', createRule],
  ['drop', dropRule],
  // the current database's default character set is a session variable as well
  ['alter', ([what]) => leaves(is(what, 'database schema') ? 'database' : undefined, 'commits')],
  // commits on NDB tables
  ['load', ([what]) => leaves(is(what, 'data xml') ? undefined : 'LOAD', 'unknown')],

  ['begin', beginRule],
  ['start', ([what]) => (what === 'transaction' ? byHand('begins') : leaves('START', 'unknown'))],
  ['commit', endRule],
  ['rollback', (words) => (words[words[0] === 'work' ? 1 : 0] === 'to' ? byHand('none') : endRule(words))],
  ['savepoint', byHand('none')],
  ['release', byHand('none')],
  ['xa', byHand('unknown')],

  ['set', ([what, ...more]) => leaves('SET', setEffect(what, more))],
  ['use', leaves('USE', 'none')],
  ['lock', ([what]) => leaves('LOCK', is(what, 'table tables') ? 'commits' : 'unknown')],
  ['unlock', ([what]) => leaves('LOCK', is(what, 'table tables') ? 'commits' : 'unknown')],
  ['flush', leaves('FLUSH', 'unknown')], // FLUSH TABLES WITH READ LOCK
  ['handler', leaves('HANDLER', 'unknown')],
  ...each('prepare execute deallocate', leaves('prepared statement', 'unknown')),
  ['call', leaves('CALL', 'unknown')],
])

function showRule(words: readonly string[]): Verdict {
  const [what, then] = words.slice(words.findIndex((word) => !is(word, 'full extended')))
  if (what === 'global') return is(then, 'variables status') ? read : notShared('SHOW')
  if (is(what, 'session local variables status')) return notShared('system variable')
  if (is(what, 'warnings errors count')) return notShared('SHOW WARNINGS')
  if (what === 'processlist') return notShared('table about sessions')
  return is(what, SHOWN) ? read : notShared('SHOW')
}

const SHOWN =
  'databases schemas tables columns fields index indexes keys create table triggers events function collation ' +
  'character charset engines storage plugins privileges grants open'

/** EXPLAIN ANALYZE runs the statement, and EXPLAIN of a change takes its locks. */
function explainRule(words: readonly string[]): Verdict {
  const from = words[0] === 'format' ? 2 : is(words[0], 'extended partitions') ? 1 : 0
  const isOfRead = !is(words[from], 'insert replace for') && !words.some((word) => is(word, 'update delete analyze'))
  return isOfRead ? read : notShared('EXPLAIN')
}

function createRule([what, , then]: readonly string[]): Verdict {
  const object = what === 'or' ? then : what // CREATE OR REPLACE
  if (object === 'temporary') return leaves('temporary table', 'none')
  const replacesDatabase = what === 'or' && is(object, 'database schema') // the current one, perhaps
  return replacesDatabase ? leaves('database', 'commits') : commits
}

function dropRule([what]: readonly string[]): Verdict {
  if (what === 'temporary') return leaves('temporary table', 'none')
  if (what === 'prepare') return leaves('prepared statement', 'unknown')
  return leaves(is(what, 'database schema') ? 'database' : undefined, 'commits') // the current one, perhaps
}

/** MariaDB's BEGIN NOT ATOMIC is a whole program. */
function beginRule(words: readonly string[]): Verdict {
  return byHand(words.length === 0 || words.join(' ') === 'work' ? 'begins' : 'unknown')
}

/** COMMIT and ROLLBACK. AND CHAIN opens the next transaction, RELEASE ends the session. */
function endRule(words: readonly string[]): Verdict {
  return byHand(/^(work)? ?(and no chain)? ?(no release)?$/.test(words.join(' ')) ? 'ends' : 'unknown')
}

function setEffect(what: string | undefined, more: readonly string[]): TransactionEffect {
  if (what === 'password' || what === 'autocommit' || more.includes('autocommit')) return 'commits'
  // SET STATEMENT ... FOR another statement; accounts and roles; "autocommit" in quotes
  if (what === undefined || is(what, 'statement default role resource "') || more.includes('"')) return 'unknown'
  return 'none'
}

function byHand(transaction: TransactionEffect): Verdict {
  return leaves('transaction by hand', transaction)
}

function leaves(reason: string | undefined, transaction: TransactionEffect): Verdict {
  return { leaves: reason, transaction, lane: reason ?? 'not a read' }
}

function notShared(lane: string): Verdict {
  return { ...clean, lane }
}

function is(word: string | undefined, list: string): boolean {
  return word !== undefined && list.split(' ').includes(word)
}

function each(list: string, rule: Rule): [string, Rule][] {
  return list.split(' ').map((verb) => [verb, rule])
}
