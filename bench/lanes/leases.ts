import { quantile, ratio, standings } from '../contest.js'
import type { Setting } from '../pools.js'
import { target, type Table } from '../table.js'
import { better, eachOfOurs } from './compare.js'
import { race, type Runner } from './effort.js'
import { load, quantiles } from './load.js'
import { endAll, openReaders, readOne, TALLIES, UPDATE, type Reader, type Waits } from './readers.js'

const MAX = 3
const CALLERS = 100
const LASTS_MS = 500
const QUICK_LASTS_MS = 300

/** Half the callers run transactions, half read. */
export async function leases(setting: Setting): Promise<Table> {
  const readers = await openReaders(setting, { max: MAX })
  const runner = (reader: Reader): Runner => ({
    name: reader.name,
    async run(lastsMs) {
      const waits: Waits = { lease: [], begun: [] }
      const groups = {
        writers: {
          callers: CALLERS,
          call: (_: number, caller: number) => reader.transact(UPDATE, [1 + (caller % TALLIES)], waits),
        },
        readers: { callers: CALLERS, call: (turn: number) => readOne(reader, turn) },
      }
      const { done, cpuUs } = await load(groups, lastsMs)
      const lease = Float64Array.from(waits.lease).sort()
      const begun = Float64Array.from(waits.begun).sort()
      return {
        wait50Ms: quantile(lease, 0.5),
        wait99Ms: quantile(lease, 0.99),
        waitMostMs: lease.at(-1) ?? NaN,
        begun99Ms: quantile(begun, 0.99),
        transactions: done.writers.perSecond,
        reads: done.readers.perSecond,
        read99Ms: quantiles(done.readers.times).p99Ms,
        cpuUs,
      }
    },
  })
  const samples = await race(setting, readers.map(runner), LASTS_MS, QUICK_LASTS_MS)
  const first = better(samples, readers, 'wait99Ms', 'least')
  await endAll(readers)
  return {
    title: `${CALLERS} callers run transactions, ${CALLERS} read, on ${MAX} sessions: ${setting.server} on loopback`,
    columns: [
      { key: 'wait50Ms', head: 'wait p50 ms', digits: 2, ratio: true },
      { key: 'wait99Ms', head: 'p99', digits: 2, ratio: true },
      { key: 'waitMostMs', head: 'most', digits: 1 },
      { key: 'begun99Ms', head: 'begun p99', digits: 2 },
      { key: 'transactions', head: 'trans/s', digits: 0 },
      { key: 'reads', head: 'reads/s', digits: 0 },
      { key: 'read99Ms', head: 'read p99', digits: 2 },
    ],
    rows: standings(samples, first),
    targets: eachOfOurs(readers, (name) => [
      target(
        `${name}: median wait for a lease to the ${first}'s`,
        ratio(samples, name, first, 'wait50Ms'),
        'at most',
        1,
      ),
      target(`${name}: p99 of it to the ${first}'s`, ratio(samples, name, first, 'wait99Ms'), 'at most', 1),
    ]),
    notes: [
      'wait: from asking until START TRANSACTION may be sent (for Holdfast, as its event acquired tells it); begun: until it was answered, taken the same way for all.',
    ],
  }
}
