import type { Flavour } from '../driver.js'

/**
 * Whether `name(`, the name unquoted and in lower case, can only be the server's own: a function that is built in and
 * leaves nothing behind in the session, or a keyword that no function can be called by. Anything else may be a stored
 * function, which may do what it likes to the session. Without a flavour: built in on both.
 *
 * The lists were taken from real servers: each word was tried with a stored function of that name in the current
 * database, and it was never the stored function that was called (`test/live/shape.test.ts` does it again). They hold
 * for MySQL 8.0 and MariaDB 10.6 and later. What is younger is left out, since an older server may have it as a stored
 * function; so is what left again (MD5 and SHA1 are no longer part of MySQL 9.7). GET_LOCK, RELEASE_LOCK and
 * RELEASE_ALL_LOCKS are missing on purpose.
 */
export function isBuiltIn(name: string, spaced: boolean, flavour: Flavour | undefined): boolean {
  if (spaced && ONLY_WITHOUT_SPACE.has(name)) return false
  return (
    ON_BOTH.has(name) || (flavour === 'mariadb' && ON_MARIADB.has(name)) || (flavour === 'mysql' && ON_MYSQL.has(name))
  )
}

const ON_BOTH = words(`
  abs acos adddate addtime aes_decrypt aes_encrypt ascii asin atan atan2 avg benchmark bin binary bit_and bit_count
  bit_length bit_or bit_xor cast ceil ceiling char char_length character character_length charset coalesce
  coercibility collation compress concat concat_ws connection_id conv convert_tz cos cot count crc32 cume_dist curdate
  current_date current_role current_time current_timestamp current_user curtime database date date_add date_format
  date_sub datediff day dayname dayofmonth dayofweek dayofyear degrees dense_rank elt exp export_set extract
  extractvalue field find_in_set first_value floor format found_rows from_base64 from_days from_unixtime greatest
  group_concat hex hour if ifnull inet6_aton inet6_ntoa inet_aton inet_ntoa instr interval is_free_lock is_ipv4
  is_ipv4_compat is_ipv4_mapped is_ipv6 is_used_lock isnull json_array json_array_append json_array_insert
  json_arrayagg json_contains json_contains_path json_depth json_extract json_insert json_keys json_length json_merge
  json_merge_patch json_merge_preserve json_object json_objectagg json_pretty json_quote json_remove json_replace
  json_search json_set json_type json_unquote json_valid json_value lag last_day last_insert_id last_value lcase lead
  least left length ln load_file localtime localtimestamp locate log log10 log2 lower lpad ltrim make_set makedate
  maketime master_pos_wait max mbrcontains mbrdisjoint mbrequals mbrintersects mbroverlaps mbrtouches mbrwithin
  microsecond mid min minute mod month monthname name_const now nth_value ntile nullif oct octet_length ord password
  percent_rank period_add period_diff pi position pow power quarter quote radians rand rank regexp_instr
  regexp_replace regexp_substr repeat replace reverse right round row row_count rpad rtrim schema sec_to_time second
  session_user sha2 sign sin sleep soundex space sqrt st_area st_asbinary st_asgeojson st_astext st_aswkb st_aswkt
  st_buffer st_centroid st_contains st_convexhull st_crosses st_difference st_dimension st_disjoint st_distance
  st_distance_sphere st_endpoint st_envelope st_equals st_exteriorring st_geomcollfromtext st_geomcollfromwkb
  st_geometrycollectionfromtext st_geometrycollectionfromwkb st_geometryfromtext st_geometryfromwkb st_geometryn
  st_geometrytype st_geomfromgeojson st_geomfromtext st_geomfromwkb st_interiorringn st_intersection st_intersects
  st_isclosed st_isempty st_issimple st_length st_linefromtext st_linefromwkb st_linestringfromtext
  st_linestringfromwkb st_mlinefromtext st_mlinefromwkb st_mpointfromtext st_mpointfromwkb st_mpolyfromtext
  st_mpolyfromwkb st_multilinestringfromtext st_multilinestringfromwkb st_multipointfromtext st_multipointfromwkb
  st_multipolygonfromtext st_multipolygonfromwkb st_numgeometries st_numinteriorrings st_numpoints st_overlaps
  st_pointfromtext st_pointfromwkb st_pointn st_polyfromtext st_polyfromwkb st_polygonfromtext st_polygonfromwkb
  st_srid st_startpoint st_symdifference st_touches st_union st_within st_x st_y std stddev stddev_pop stddev_samp
  str_to_date strcmp subdate substr substring substring_index subtime sum sysdate system_user tan time time_format
  time_to_sec timediff timestamp to_base64 to_days to_seconds trim truncate ucase uncompress uncompressed_length unhex
  unix_timestamp updatexml upper user utc_date utc_time utc_timestamp uuid uuid_short var_pop var_samp variance
  version week weekday weekofyear weight_string year yearweek

  add all and any as asc between bigint bit blob by case check column convert cross datetime dec decimal default desc
  distinct distinctrow div double else elseif enum except exists explain fixed float for force foreign from fulltext
  get_format having ignore in index inner insert int integer intersect into is join json key keys like limit longtext
  match mediumint mediumtext natural nchar not numeric nvarchar offset on or outer over partition precision primary
  range real recursive references regexp returning rlike row_number rows select set smallint some spatial table text
  then timestampadd timestampdiff tinyint union unique update use using value values varbinary varchar when where
  window with xor
`)

/** What one server has built in, users write for the other: a `nextval` on MySQL, a `uuid_to_bin` on MariaDB. */
const ON_MARIADB = words(`
  add_months binlog_gtid_pos chr column_add column_check column_create column_delete column_exists column_get
  column_json column_list decode des_decrypt des_encrypt encode encrypt json_compact json_detailed json_exists
  json_loose json_query lastval lengthb master_gtid_wait md5 median nextval nvl nvl2 old_password percentile_cont
  percentile_disc rownum setval sha sha1 st_boundary st_isring st_pointonsurface st_relate sys_guid to_char
`)

/** On MariaDB most words that are not reserved can be a stored function's name, even JSON_TABLE and POINT. */
const ON_MYSQL = words(`
  any_value bin_to_uuid format_bytes format_pico_time geomcollection geometrycollection grouping gtid_subset
  gtid_subtract icu_version is_uuid json_overlaps json_schema_valid json_schema_validation_report json_storage_free
  json_storage_size json_table linestring mbrcoveredby mbrcovers multilinestring multipoint multipolygon point polygon
  ps_current_thread_id ps_thread_id random_bytes regexp_like roles_graphml source_pos_wait st_buffer_strategy
  st_collect st_frechetdistance st_geohash st_geomcollfromtxt st_hausdorffdistance st_isvalid st_latfromgeohash
  st_latitude st_lineinterpolatepoint st_lineinterpolatepoints st_longfromgeohash st_longitude st_makeenvelope
  st_numinteriorring st_pointatdistance st_pointfromgeohash st_simplify st_swapxy st_transform st_validate
  statement_digest statement_digest_text uuid_to_bin wait_for_executed_gtid_set

  against array columns escape geometry hash lateral list member of rollup
`)

/** With a space before the parenthesis these mean a stored function, unless sql_mode has IGNORE_SPACE. */
const ONLY_WITHOUT_SPACE = words(`
  adddate bit_and bit_or bit_xor cast count cume_dist curdate curtime date_add date_sub dense_rank extract first_value
  group_concat json_arrayagg json_objectagg lag lead max median mid min now nth_value ntile percent_rank
  percentile_cont percentile_disc position rank session_user st_collect std stddev stddev_pop stddev_samp subdate
  substr substring sum sysdate system_user trim var_pop var_samp variance
`)

function words(list: string): ReadonlySet<string> {
  return new Set(list.trim().split(/\s+/))
}
