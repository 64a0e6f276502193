import { contest, measureEach, type Contender } from '../contest.js'
import {
  holdfastPool,
  mariadb,
  mariadbCallback,
  mariadbOptions,
  mysql2,
  mysql2Callback,
  mysql2Options,
} from '../pools.js'
import type { Setting } from '../pools.js'
import type { Table } from '../table.js'

// Sessions that the server was not heard on for 500 ms are looked at, by both sides: a round must be over before.
const COUNT = 50_000
const QUICK_COUNT = 25_000
const LIMIT_US = 2

/** Acquire and release on a warm pool, one after the other, without a statement. */
export async function acquire(setting: Setting): Promise<Table[]> {
  const count = setting.quick ? QUICK_COUNT : COUNT
  const holdfast = holdfastPool(setting)
  const own = setting.driver === 'mysql2' ? ownMysql2(setting, count) : ownMariadb(setting, count)
  const asHoldfast = (name: string, work: () => Promise<void>): Contender => ({
    name,
    async round() {
      await holdfast.query('SELECT 1')
      return measureEach(count, work)
    },
  })
  const contenders = [
    ...own.contenders,
    asHoldfast('Holdfast acquire() and release()', async () => {
      for (let i = 0; i < count; i++) (await holdfast.acquire()).release()
    }),
    asHoldfast('Holdfast use()', async () => {
      for (let i = 0; i < count; i++) await holdfast.use(nothing)
    }),
  ]
  const rows = await contest(contenders, setting.quick ? 5 : 15)
  await Promise.all([holdfast.drain(), own.end()])

  const bare = rows[0]?.least['cpuUs'] ?? NaN
  const over = rows
    .filter((row) => row.name.startsWith('Holdfast'))
    .map((row) => ({ what: row.name.slice('Holdfast '.length), us: (row.least['cpuUs'] ?? NaN) - bare }))
  const isKept = over.every(({ us }) => us <= LIMIT_US)
  return [
    {
      title: `Acquire and release on a warm pool of ${setting.driver}, no statement`,
      columns: [
        { key: 'cpuUs', head: 'CPU us', digits: 2, ratio: true },
        { key: 'leastUs', head: 'least', digits: 2 },
        { key: 'wallUs', head: 'wall us', digits: 2, ratio: true },
      ],
      rows: rows.map((row) => ({ ...row, values: { ...row.values, leastUs: row.least['cpuUs'] ?? NaN } })),
      notes: [
        `CPU over the bare call (the first row), least to least: ${over.map(({ what, us }) => `${what} ${us.toFixed(2)} us`).join(', ')}; the limit is ${LIMIT_US} us: ${isKept ? 'kept' : 'MISSED'}.`,
        'Not equal: only Holdfast knows each lease by a token, its age and its taker, and takes it back when it is garbage-collected.',
      ],
    },
  ]
}

const nothing = async (): Promise<void> => {}

interface Own {
  readonly contenders: Contender[]
  end(): Promise<unknown>
}

function ownMysql2(setting: Setting, count: number): Own {
  const byCallback = mysql2Callback.createPool(mysql2Options(setting))
  const byPromise = mysql2.createPool(mysql2Options(setting))
  const step = (done: () => void): void =>
    byCallback.getConnection((error, connection) => {
      if (error) throw error
      connection.release()
      done()
    })
  return {
    contenders: [
      {
        name: 'mysql2 getConnection, callback',
        async round() {
          await byCallback.promise().query('SELECT 1')
          return measureEach(count, () => repeat(count, step))
        },
      },
      {
        name: 'mysql2 getConnection, promise',
        async round() {
          await byPromise.query('SELECT 1')
          return measureEach(count, async () => {
            for (let i = 0; i < count; i++) (await byPromise.getConnection()).release()
          })
        },
      },
    ],
    end: () => Promise.all([byCallback.promise().end(), byPromise.end()]),
  }
}

function ownMariadb(setting: Setting, count: number): Own {
  const byCallback = mariadbCallback.createPool(mariadbOptions(setting))
  const byPromise = mariadb.createPool(mariadbOptions(setting))
  const step = (done: () => void): void =>
    byCallback.getConnection((error, connection) => {
      if (error || !connection) throw error ?? new Error('no connection')
      connection.release(done)
    })
  return {
    contenders: [
      {
        name: 'mariadb getConnection, callback',
        async round() {
          await new Promise((resolve) => byCallback.query('SELECT 1', resolve))
          return measureEach(count, () => repeat(count, step))
        },
      },
      {
        name: 'mariadb getConnection, promise',
        async round() {
          await byPromise.query('SELECT 1')
          return measureEach(count, async () => {
            for (let i = 0; i < count; i++) await (await byPromise.getConnection()).release()
          })
        },
      },
    ],
    end: () => Promise.all([new Promise<void>((resolve) => byCallback.end(() => resolve())), byPromise.end()]),
  }
}

/** `step` one after the other; it may call `done` at once or later. */
function repeat(count: number, step: (done: () => void) => void): Promise<void> {
  return new Promise((resolve) => {
    let begun = 0
    let over = 0
    let isPumping = false
    const pump = (): void => {
      isPumping = true
      while (begun === over && begun < count) {
        begun++
        step(done)
      }
      isPumping = false
    }
    const done = (): void => {
      over++
      if (over === count)
        setImmediate(resolve) // what a driver has left for the next tick is part of it
      else if (!isPumping) pump()
    }
    pump()
  })
}
