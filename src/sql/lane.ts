import { hashOf } from './form.js'

/**
 * What keeps a read off a lane: sessions that many callers share, set to READ ONLY. There the server itself refuses to
 * write. It does not refuse what locks or waits, what changes the session, or what asks about it: that must be seen
 * here. A word is known by its hash; should another word have the same one, it costs a lease.
 */

/** Words that mean it wherever they stand without quotes, unless they are part of a longer name. */
const KEYWORDS = table({
  INTO: 'into', // a variable or a file
  // of FOR UPDATE and LOCK IN SHARE MODE; both words are reserved, and in no read mean anything else
  'locking read': 'update lock',
  SQL_CALC_FOUND_ROWS: 'sql_calc_found_rows',
  PROCEDURE: 'procedure',
})

/** Tables that show the session that asks, or what was asked before. Also in quotes, and as a part of a longer name. */
const NAMES = table({
  'table about sessions': `
    processlist session_variables session_status session_connect_attrs session_account_connect_attrs user_variables
    system_variables innodb_trx innodb_locks innodb_lock_waits innodb_temp_table_info innodb_session_temp_tablespaces
    metadata_lock_info optimizer_trace profiling performance_schema
  `,
  sequence: 'nextval currval lastval setval', // with sql_mode=ORACLE: s.nextval
})

const FUNCTIONS = table({
  'user lock': 'is_free_lock is_used_lock',
  'function that waits': `
    sleep benchmark master_pos_wait source_pos_wait master_gtid_wait wait_for_executed_gtid_set
    wait_until_sql_thread_after_gtids
  `,
  'function of the session': 'last_insert_id found_rows row_count connection_id ps_current_thread_id',
})

const [FOR, SHARE, VALUE] = [hashOf('for'), hashOf('share'), hashOf('value')]
const ANYWHERE: ReadonlyMap<number, string> = new Map([...NAMES, ...KEYWORDS])

const MASK = 0x7ff
/** Most words are none of these, and this says so sooner than a Map does. */
const PERHAPS = new Uint8Array(MASK + 1)
for (const word of [...ANYWHERE.keys(), FOR, SHARE]) PERHAPS[word & MASK] = 1

/** `before`: the word directly before it, 0 when there stands something else. */
export function whyNotWord(word: number, before: number): string | undefined {
  if (PERHAPS[word & MASK] === 0) return undefined
  if (word === SHARE && before === FOR) return 'locking read' // no reserved word
  if (word === FOR && before === VALUE) return 'sequence' // NEXT VALUE FOR, PREVIOUS VALUE FOR
  return ANYWHERE.get(word)
}

export function whyNotName(name: number): string | undefined {
  return NAMES.get(name)
}

export function whyNotCall(name: number): string | undefined {
  return FUNCTIONS.get(name)
}

/** Hints that change the session, if only until the statement ends. */
export function whyNotHint(hint: string): string | undefined {
  return /set_var|resource_group/i.test(hint) ? 'optimizer hint' : undefined
}

/** What begins with `@@` at `from`. A lane may not show what is different there, or what the last statement did. */
export function whyNotVariable(sql: string, from: number): string | undefined {
  VARIABLE.lastIndex = from
  const [, global, , name = ''] = VARIABLE.exec(sql) ?? []
  return global !== undefined || EVERYDAY.has(name.toLowerCase()) ? undefined : 'system variable'
}

const VARIABLE = /@@(?:(global)\s*\.|(?:session|local)\s*\.)?\s*(`?)([\w$]+)\2/iy

const EVERYDAY: ReadonlySet<string> = words(`
  auto_increment_increment auto_increment_offset autocommit basedir character_set_client character_set_connection
  character_set_database character_set_filesystem character_set_results character_set_server character_set_system
  collation_connection collation_database collation_server datadir default_storage_engine foreign_key_checks
  group_concat_max_len have_ssl hostname init_connect innodb_version interactive_timeout license lock_wait_timeout
  innodb_lock_wait_timeout lower_case_file_system lower_case_table_names max_allowed_packet max_connections
  max_user_connections net_read_timeout net_write_timeout port protocol_version query_cache_size query_cache_type
  read_only secure_file_priv server_id server_uuid socket
  sql_auto_is_null sql_mode sql_safe_updates sql_select_limit storage_engine super_read_only system_time_zone time_zone
  tmpdir transaction_isolation tx_isolation unique_checks version version_comment version_compile_machine
  version_compile_os wait_timeout
`)

function table(reasons: Readonly<Record<string, string>>): ReadonlyMap<number, string> {
  return new Map(Object.entries(reasons).flatMap(([why, list]) => [...words(list)].map((word) => [hashOf(word), why])))
}

function words(list: string): ReadonlySet<string> {
  return new Set(list.trim().split(/\s+/))
}
