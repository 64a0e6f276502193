import type { Row, Statement } from '../driver.js'
import { layGhost } from '../pool/ghost.js'
import { captureSite, noteLease, type LeaseNote } from '../pool/lease-note.js'
import { RowReader, type StreamHome, type StreamOptions } from '../results/stream.js'
import { leaseAbandoned } from './failure.js'
import type { Counter } from './lease.js'
import { conditionAfter } from './retry.js'

/** Rows on a session of their own, which comes home when the server has sent the last, or the reader leaves or is lost. */
export function poolStream<R = Row>(
  { lender, leaks }: Counter,
  statement: Statement,
  options: StreamOptions | undefined,
): AsyncIterableIterator<R> {
  const site = captureSite(lender.clock.now())
  let note: LeaseNote | undefined
  const home: StreamHome = {
    begin: async () => {
      const slot = lender.take() ?? (await lender.wait(lender.options.acquireTimeoutMs, options?.signal))
      note = noteLease(slot, site)
      note.busy = true
      note.lastSql = statement.sql
      note.reading = { rows: 0, waits: false, workedAt: slot.leasedAt, seen: 0 }
      home.reading = note.reading
      leaks.watch(reader, note)
      return slot
    },
    failed: async () => (note?.abandoned ? leaseAbandoned(lender.options.leakAfterMs) : undefined),
    end: async (slot, rows) => {
      if (note) leaks.unwatch(note)
      if (slot.place !== 'leased') return
      if (!rows || rows.complete || !slot.session?.alive) {
        return lender.giveBack(slot, rows ? conditionAfter(slot, statement) : 'clean', rows?.complete)
      }
      // Dropped, its server stops sending at once; draining could take as long as the whole result.
      lender.ghost(slot)
      slot.session.destroy()
      void layGhost(lender, slot)
    },
  }
  const reader = new RowReader<R>(lender, statement, options, home)
  return reader
}
