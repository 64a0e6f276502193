import type { Setting } from './pools.js'
import { acquire } from './sections/acquire.js'
import { cold } from './sections/cold.js'
import { lanes } from './sections/lanes.js'
import { ledger } from './sections/ledger.js'
import { query } from './sections/query.js'
import { stream } from './sections/stream.js'
import { throughput } from './sections/throughput.js'
import { transactions } from './sections/transactions.js'
import { waiters } from './sections/waiters.js'
import type { ServerKind } from '../src/testing/server.js'
import type { Table } from './table.js'

export interface Section {
  /** Once for each driver; else once, with the first. */
  readonly perDriver: boolean
  /** On these too, beside MariaDB 10.11, unless it shall be quick. */
  readonly alsoOn?: readonly ServerKind[]
  run(setting: Setting): Promise<Table[]>
}

/** In the order in which they are run. */
export const SECTIONS: ReadonlyMap<string, Section> = new Map<string, Section>([
  ['acquire', { perDriver: true, run: acquire }],
  ['query', { perDriver: true, run: query }],
  ['throughput', { perDriver: true, run: throughput }],
  ['transactions', { perDriver: true, run: transactions }],
  ['waiters', { perDriver: false, run: waiters }],
  ['stream', { perDriver: true, run: stream }],
  ['cold', { perDriver: true, run: cold }],
  ['lanes', { perDriver: false, alsoOn: ['mysql-9.7'], run: lanes }],
  ['ledger', { perDriver: false, run: ledger }],
])
