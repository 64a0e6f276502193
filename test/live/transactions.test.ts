import { setTimeout as sleep } from 'node:timers/promises'
import diagnostics from 'node:diagnostics_channel'
import { describe, test } from 'vitest'
import type { Events, Lease, Transaction } from '../../src/index.js'
import { losing, type Loss } from '../../src/testing/relay.js'
import { availableServers, startServer } from '../../src/testing/server.js'
import {
  DRIVERS,
  failure,
  holdfastError,
  MARIADB,
  PAIRS,
  scene,
  sharedServer,
  soon,
  until,
  untilNotRunning,
  untilRunning,
  type Scene,
} from './scene.js'

const LOG = 'CREATE TABLE {db}.log (id INT PRIMARY KEY AUTO_INCREMENT, what VARCHAR(100))'
const ROWS = [
  LOG,
  'CREATE TABLE {db}.t (id INT PRIMARY KEY, v INT)',
  'INSERT INTO {db}.t WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) SELECT i, 0 FROM n',
]

/** What the log holds, in order, as root sees it. */
async function logged({ root }: Scene): Promise<string[]> {
  return (await root<{ what: string }>('SELECT what FROM {db}.log ORDER BY id')).map(({ what }) => what)
}

function log(tx: Transaction | Lease, what: string): Promise<unknown> {
  return tx.query('INSERT INTO log (what) VALUES (?)', [what])
}

interface Rival {
  /** Takes row 1, and lets the rival want it: from then on whoever wants row 2 is in a deadlock. Just takes it, later. */
  readonly provoke: (tx: Transaction) => Promise<void>
  /** The victim's statement: the rival has done more. */
  readonly strike: (tx: Transaction) => Promise<unknown>
  /** Both. */
  readonly meet: (tx: Transaction) => Promise<unknown>
}

/** Another session holds rows 2 to 100, gets into a deadlock with the first that provokes it, goes on and commits. */
async function withRival({ db, server, account }: Scene, act: (rival: Rival) => Promise<void>): Promise<void> {
  await using lease = await db.acquire()
  await lease.query('BEGIN')
  await lease.query('UPDATE t SET v = v + 1000 WHERE id >= 2')
  let over: Promise<unknown> | undefined
  const rival: Rival = {
    provoke: async (tx) => {
      await over
      await tx.query('UPDATE t SET v = v + 1 WHERE id = 1')
      if (over !== undefined) return
      const wanting = lease.query('UPDATE t SET v = v + 1000 WHERE id = 1 /* rival */')
      over = wanting.then(() => lease.query('COMMIT'))
      over.catch(() => {})
      await untilRunning(server, account.user, 'rival')
    },
    strike: (tx) => tx.query('UPDATE t SET v = v + 1 WHERE id = 2'),
    meet: async (tx) => {
      await rival.provoke(tx)
      return rival.strike(tx)
    },
  }
  await act(rival)
  await over
}

const AFTER_RIVAL = [
  { id: 1, v: 1001 },
  { id: 2, v: 1001 },
  { id: 3, v: 1000 },
]

describe.each(PAIRS)('transactions on $kind with $driver', { concurrent: true }, ({ kind, driver }) => {
  test('commit, rollback, and the value that the block returns', async ({ expect }) => {
    await scene(await sharedServer(kind), { driver, max: 1, setup: LOG }, async (s) => {
      const value = { any: 'thing' }
      expect(await s.db.transaction(async (tx) => (await log(tx, 'kept'), value))).toBe(value)
      const mine = new Error('mine')
      const thrown = s.db.transaction(async (tx) => {
        await log(tx, 'not kept')
        throw mine
      })
      expect(await failure(thrown)).toBe(mine)
      expect(await failure(s.db.transaction(() => Promise.reject('a string')))).toBe('a string')
      expect(await s.db.transaction(async () => {})).toBeUndefined()
      expect(await logged(s)).toEqual(['kept'])
      expect(s.db.stats().total.opened).toBe(1)
    })
  })

  test('transactions within: each is undone by itself, three deep', async ({ expect }) => {
    await scene(await sharedServer(kind), { driver, max: 1, setup: LOG }, async (s) => {
      const mine = new Error('mine')
      await s.db.transaction(async (tx) => {
        await log(tx, '1')
        const inner = tx.transaction(async (second) => {
          await log(second, '2 undone')
          await second.transaction((third) => log(third, '3 undone with 2'))
          throw mine
        })
        expect(await failure(inner)).toBe(mine)
        const value = await tx.transaction(async (second) => {
          await log(second, '2')
          expect(
            await failure(
              second.transaction(async (third) => {
                await log(third, '3 undone')
                throw mine
              }),
            ),
          ).toBe(mine)
          await second.transaction((third) => log(third, '3'))
          // A statement that the server refuses undoes just itself.
          expect(await failure(second.query('INSERT INTO log (id, what) SELECT id, 1 FROM log'))).toMatchObject({
            errno: 1062,
          })
          return 'value'
        })
        expect(value).toBe('value')
        await log(tx, '1 again')
      })
      expect(await logged(s)).toEqual(['1', '2', '3', '1 again'])
    })
  })

  test('a deadlock: the whole block is run again, and both succeed', async ({ expect }) => {
    await scene(await sharedServer(kind), { driver, setup: ROWS }, async (s) => {
      const retries: Events['retry'][] = []
      const listen = (message: unknown): void => {
        if ((message as Events['retry']).pool === s.account.database) retries.push(message as Events['retry'])
      }
      diagnostics.subscribe('holdfast:retry', listen)
      let runs = 0
      await withRival(s, async ({ meet }) => {
        const value = await s.db.transaction(async (tx) => {
          await log(tx, `run ${++runs}`)
          await meet(tx)
          return runs
        })
        expect(value).toBe(2)
      })
      diagnostics.unsubscribe('holdfast:retry', listen)
      expect(await logged(s)).toEqual(['run 2'])
      expect(await s.root('SELECT * FROM {db}.t WHERE id <= 3')).toEqual(AFTER_RIVAL)
      expect(retries).toMatchObject([{ what: 'transaction', attempt: 2, fault: { kind: 'deadlock' } }])
    })
  })

  test('a deadlock that the block catches: no later statement of it reaches the server, and it is run again', async ({
    expect,
  }) => {
    await scene(await sharedServer(kind), { driver, setup: ROWS }, async (s) => {
      let runs = 0
      await withRival(s, async ({ meet }) => {
        await s.db.transaction(async (tx) => {
          const run = ++runs
          await log(tx, `before ${run}`)
          const met = await meet(tx).catch((error) => error)
          if (run === 1) {
            expect(met).toMatchObject({ errno: 1213 })
            for (const step of [
              () => log(tx, 'after, and would autocommit'),
              () => tx.transaction((inner) => log(inner, 'within')),
              () => tx.stream('SELECT 1').next(),
            ]) {
              const error = await holdfastError(Promise.resolve().then(step), 'TRANSACTION_LOST')
              expect(error.effect).toBe('rolled-back')
            }
          } else await log(tx, `after ${run}`)
        })
      })
      expect(runs).toBe(2)
      expect(await logged(s)).toEqual(['before 2', 'after 2'])
      expect(await s.root('SELECT * FROM {db}.t WHERE id <= 3')).toEqual(AFTER_RIVAL)
    })
  })

  test('a deadlock with statements of the block in line behind it: none of them reaches the server', async ({
    expect,
  }) => {
    await scene(await sharedServer(kind), { driver, setup: ROWS }, async (s) => {
      let runs = 0
      await withRival(s, async ({ provoke, strike }) => {
        await s.db.transaction(async (tx) => {
          const run = ++runs
          await log(tx, `before ${run}`)
          await provoke(tx)
          const all = [strike(tx), ...['x', 'y', 'z'].map((name) => log(tx, `behind ${name} ${run}`))]
          const told = await Promise.allSettled(all)
          if (run > 1) return
          expect(told.map((each) => each.status === 'rejected' && (each.reason.errno ?? each.reason.code))).toEqual([
            1213,
            ...Array(3).fill('TRANSACTION_LOST'),
          ])
        })
      })
      expect(runs).toBe(2)
      expect(await logged(s)).toEqual(['before 2', 'behind x 2', 'behind y 2', 'behind z 2'])
    })
  })

  test('the session is killed in mid-transaction: run again on another, with effect exactly once', async ({
    expect,
  }) => {
    await scene(await sharedServer(kind), { driver, max: 2, setup: LOG }, async (s) => {
      const threads: number[] = []
      const value = await s.db.transaction(async (tx) => {
        const run = threads.push(tx.threadId)
        await log(tx, `first of ${run}`)
        if (run === 1) {
          await s.server.kill(tx.threadId)
          for (const name of ['x', 'y', 'z']) {
            const error = await holdfastError(log(tx, `${name} of the lost one`), 'TRANSACTION_LOST')
            expect(error.effect).toBe('rolled-back')
          }
          throw new Error('the block may throw what it likes: it was lost')
        }
        await log(tx, `second of ${run}`)
        return run
      })
      expect(value).toBe(2)
      expect(new Set(threads).size).toBe(2)
      expect(await logged(s)).toEqual(['first of 2', 'second of 2'])
    })
  })

  test('killed under a statement, and killed before COMMIT: run again both times', async ({ expect }) => {
    const server = await sharedServer(kind)
    await scene(server, { driver, max: 2, setup: LOG }, async (s) => {
      let runs = 0
      await s.db.transaction(async (tx) => {
        const run = ++runs
        await log(tx, `run ${run}`)
        if (run === 1) {
          const slow = tx.query('SELECT SLEEP(20) AS slept')
          slow.catch(() => {})
          await server.kill(await untilRunning(server, s.account.user, 'slept'))
          await slow
        }
        if (run === 2) {
          await server.kill(tx.threadId)
          await until(async () => !(await server.sessions(s.account.user)).some(({ id }) => id === tx.threadId))
          await sleep(50)
        }
        return run
      })
      expect(runs).toBe(3)
      expect(await logged(s)).toEqual(['run 3'])
    })
  })

  for (const loss of ['reset-after', 'cut-after', 'reset-before', 'cut-before'] as const satisfies Loss[]) {
    test(`COMMIT is lost (${loss}): COMMIT_UNKNOWN, and the block is not run again`, async ({ expect }) => {
      await scene(await sharedServer(kind), { driver, max: 2, relay: {}, setup: LOG }, async (s) => {
        await s.db.query('SELECT 1')
        s.relay.onRequest = losing('COMMIT', loss)
        let runs = 0
        const told = s.db.transaction(async (tx) => {
          await log(tx, `run ${++runs}`)
        })
        const error = await holdfastError(told, 'COMMIT_UNKNOWN')
        expect(error.effect).toBe('unknown')
        expect(error.cause).toBeInstanceOf(Error)
        expect(runs).toBe(1)
        expect(s.relay.losses).toBe(1)
        expect(await logged(s)).toEqual(loss.endsWith('after') ? ['run 1'] : [])
      })
    })

    test(`a statement before COMMIT is lost (${loss}): the block is run again, with effect exactly once`, async ({
      expect,
    }) => {
      await scene(await sharedServer(kind), { driver, max: 2, relay: {}, setup: LOG }, async (s) => {
        await s.db.query('SELECT 1')
        let runs = 0
        for (const text of ['START TRANSACTION', 'INSERT', 'SELECT 42']) {
          s.relay.onRequest = losing(text, loss)
          await s.db.transaction(async (tx) => {
            runs++
            await log(tx, text)
            await tx.query('SELECT 42')
          })
        }
        expect(s.relay.losses).toBe(3)
        expect(runs).toBe(5)
        expect(await logged(s)).toEqual(['START TRANSACTION', 'INSERT', 'SELECT 42'])
      })
    })
  }

  test('with DDL inside, nothing is run again, and the effect is unknown', async ({ expect }) => {
    await scene(await sharedServer(kind), { driver, max: 2, setup: LOG }, async (s) => {
      let runs = 0
      const told = s.db.transaction(async (tx) => {
        runs++
        await log(tx, 'committed by the DDL')
        await tx.query('CREATE TABLE other (id INT)')
        await s.server.kill(tx.threadId)
        await log(tx, 'never')
      })
      const error = await holdfastError(told, 'TRANSACTION_LOST')
      expect(error.effect).toBe('unknown')
      expect(runs).toBe(1)
      expect(await logged(s)).toEqual(['committed by the DDL'])
    })
  })

  test('timeoutMs: a block that waits for something else is cut, rolled back, and its locks are free', async ({
    expect,
  }) => {
    await scene(await sharedServer(kind), { driver, max: 2, setup: ROWS }, async (s) => {
      let open = (): void => {}
      const gate = new Promise<void>((resolve) => (open = resolve))
      let late: unknown
      const block = async (tx: Transaction): Promise<void> => {
        await tx.query('UPDATE t SET v = 7 WHERE id = 1')
        await gate
        late = await failure(log(tx, 'late'))
      }
      await s.db.query('SELECT 1')
      const told = holdfastError(s.db.transaction(block, { timeoutMs: 600 }), 'QUERY_TIMEOUT')
      const error = await soon(told, 2_500)
      expect(error.effect).toBe('rolled-back')
      expect((await soon(s.db.query('UPDATE t SET v = v + 1 WHERE id = 1'), 1_500)).affectedRows).toBe(1)
      open()
      await until(() => late !== undefined)
      expect(['LEASE_RELEASED', 'TRANSACTION_LOST', 'ABORTED']).toContain((late as { code: string }).code)
      expect(await logged(s)).toEqual([])
      expect(await s.root('SELECT v FROM {db}.t WHERE id = 1')).toEqual([{ v: 1 }])
    })
  })

  test('timeoutMs: a statement that overruns is ended on the server, and all is rolled back', async ({ expect }) => {
    const server = await sharedServer(kind)
    await scene(server, { driver, max: 2, setup: ROWS }, async (s) => {
      await s.db.query('SELECT 1')
      let runs = 0
      const block = async (tx: Transaction): Promise<void> => {
        runs++
        await tx.query('UPDATE t SET v = 7 WHERE id = 1')
        await tx.query('SELECT SLEEP(20) AS slept')
      }
      const told = holdfastError(s.db.transaction(block, { timeoutMs: 600 }), 'QUERY_TIMEOUT')
      expect((await soon(told, 2_500)).effect).toBe('rolled-back')
      expect(runs).toBe(1)
      await untilNotRunning(server, s.account.user, 'slept', 2_000)
      expect((await soon(s.db.query('UPDATE t SET v = v + 1 WHERE id = 1'), 2_000)).affectedRows).toBe(1)
      expect(await s.root('SELECT v FROM {db}.t WHERE id = 1')).toEqual([{ v: 1 }])
    })
  })

  test('1205 as it is by default undoes just its statement: the block may go on', async ({ expect }) => {
    const options = { driver, sessionInit: 'SET SESSION innodb_lock_wait_timeout = 1', setup: ROWS }
    await scene(await sharedServer(kind), options, async (s) => {
      const holder = await s.db.acquire()
      await holder.query('BEGIN')
      await holder.query('UPDATE t SET v = 5 WHERE id = 1')
      let runs = 0
      await s.db.transaction(async (tx) => {
        runs++
        await log(tx, 'before')
        expect(await failure(tx.query('UPDATE t SET v = v + 1 WHERE id = 1'))).toMatchObject({ errno: 1205 })
        await log(tx, 'after')
      })
      await holder.query('ROLLBACK')
      holder.release()
      expect(runs).toBe(1)
      expect(await logged(s)).toEqual(['before', 'after'])
    })
  })

  test('isolation and readOnly hold for this transaction, and for no other', async ({ expect }) => {
    await scene(await sharedServer(kind), { driver, max: 2, setup: ROWS }, async (s) => {
      const sees = async (tx: Transaction): Promise<number> =>
        (await tx.query('SELECT v FROM t WHERE id = 1')).rows[0].v as number
      const twice = async (tx: Transaction): Promise<[number, number]> => {
        const first = await sees(tx)
        await s.root('UPDATE {db}.t SET v = v + 1 WHERE id = 1')
        return [first, await sees(tx)]
      }
      await using _other = await s.db.acquire() // both halves below on one session
      expect(await s.db.transaction(twice, { isolation: 'read committed' })).toEqual([0, 1])
      expect(await s.db.transaction(twice)).toEqual([1, 1])
      expect(await s.db.transaction(twice, { isolation: 'repeatable read', readOnly: true })).toEqual([2, 2])
      expect(await failure(s.db.transaction((tx) => log(tx, 'no'), { readOnly: true }))).toMatchObject({ errno: 1792 })
      expect(await s.db.transaction(twice)).toEqual([3, 3])
      await s.db.transaction((tx) => log(tx, 'yes'))
      // Given up between SET TRANSACTION and START TRANSACTION, or rolled back: nothing of it is left either.
      await failure(s.db.transaction(() => Promise.reject(new Error('mine')), { isolation: 'serializable' }))
      expect(await s.db.transaction(twice)).toEqual([4, 4])
      expect(s.db.stats().total.opened).toBe(2)
    })
  })
})

// Each on a server of its own, both drivers one after the other: starting a MySQL is what takes the time.
describe.each(availableServers().map((kind) => ({ kind })))(
  'transactions on a $kind',
  { concurrent: true, timeout: 90_000 },
  ({ kind }) => {
    test('the server is killed between two statements: run again when it is up', async ({ expect }) => {
      await using server = await startServer(kind)
      for (const driver of DRIVERS)
        await scene(server, { driver, max: 2, acquireTimeoutMs: 25_000, setup: LOG }, async (s) => {
          let runs = 0
          await s.db.transaction(async (tx) => {
            const run = ++runs
            await log(tx, `first of ${run}`)
            if (run === 1) await server.restart('SIGKILL')
            await log(tx, `second of ${run}`)
          })
          expect(runs).toBe(2)
          expect(await logged(s)).toEqual(['first of 2', 'second of 2'])
        })
    })

    test('1205 undoes the whole transaction under innodb_rollback_on_timeout, and the block is run again', async ({
      expect,
    }) => {
      const flags = ['--innodb-rollback-on-timeout=ON', '--innodb-lock-wait-timeout=1']
      await using server = await startServer(kind, { flags })
      for (const driver of DRIVERS)
        await scene(server, { driver, setup: ROWS }, async (s) => {
          const holder = await s.db.acquire()
          await holder.query('BEGIN')
          await holder.query('UPDATE t SET v = 5 WHERE id = 1')
          let runs = 0
          await s.db.transaction(async (tx) => {
            const run = ++runs
            await log(tx, `first of ${run}`)
            const waited = await tx.query('UPDATE t SET v = v + 1 WHERE id = 1').catch((error) => error)
            if (run === 1) {
              expect(waited).toMatchObject({ errno: 1205 })
              await holder.query('COMMIT')
              holder.release()
              await holdfastError(log(tx, 'would autocommit'), 'TRANSACTION_LOST')
            }
          })
          expect(runs).toBe(2)
          expect(await logged(s)).toEqual(['first of 2'])
          expect(await s.root('SELECT v FROM {db}.t WHERE id = 1')).toEqual([{ v: 6 }])
        })
    })

    test('COMMIT refused with 1290: nothing is committed, then or later', async ({ expect }) => {
      await using server = await startServer(kind)
      for (const driver of DRIVERS)
        await scene(server, { driver, max: 1, setup: LOG }, async (s) => {
          let runs = 0
          const told = s.db.transaction(async (tx) => {
            runs++
            await log(tx, 'refused')
            await server.set('read_only', 1)
          })
          const error = await failure(soon(told, 5_000))
          await server.set('read_only', 0)
          expect(runs).toBe(1)
          expect(error.code === 'TRANSACTION_LOST' ? error.cause : error).toMatchObject({ errno: 1290 })
          if (error.code === 'TRANSACTION_LOST') expect(error.effect).toBe('rolled-back')
          expect(await logged(s)).toEqual([])
          await s.db.transaction((tx) => log(tx, 'next'))
          expect(await logged(s)).toEqual(['next'])
        })
    })
  },
)

describe.each(DRIVERS.map((driver) => ({ driver })))('on MariaDB with $driver', { concurrent: true }, ({ driver }) => {
  test('retries are bounded: none, two, and five by default', async ({ expect }) => {
    await scene(await sharedServer(MARIADB), { driver, max: 2, setup: LOG }, async (s) => {
      for (const [options, expected] of [
        [{ retries: 0 }, 1],
        [{ retries: 2 }, 3],
        [undefined, 6],
      ] as const) {
        let runs = 0
        const doomed = s.db.transaction(async (tx) => {
          runs++
          await log(tx, 'never')
          await s.server.kill(tx.threadId)
          await log(tx, 'nor this')
        }, options)
        const error = await holdfastError(doomed, 'TRANSACTION_LOST')
        expect(error.effect).toBe('rolled-back')
        expect(runs).toBe(expected)
      }
      expect(await logged(s)).toEqual([])
    })
  })

  test('with retries: 0 a deadlock is the driver its own error', async ({ expect }) => {
    await scene(await sharedServer(MARIADB), { driver, setup: ROWS }, async (s) => {
      await withRival(s, async ({ meet }) => {
        const error = await failure(s.db.transaction((tx) => meet(tx), { retries: 0 }))
        expect(error).toMatchObject({ errno: 1213, sqlState: '40001', code: 'ER_LOCK_DEADLOCK' })
      })
    })
  })

  test('a deadlock in a transaction within: the outermost block is run again', async ({ expect }) => {
    await scene(await sharedServer(MARIADB), { driver, setup: ROWS }, async (s) => {
      let runs = 0
      await withRival(s, async ({ meet }) => {
        await s.db.transaction(async (tx) => {
          const run = ++runs
          await log(tx, `outer ${run}`)
          await tx
            .transaction(async (inner) => {
              await log(inner, `inner ${run}`)
              await meet(inner)
            })
            .catch(() => {}) // what was thought to be a savepoint's matter
          if (run === 1) await failure(log(tx, 'would autocommit'))
        })
      })
      expect(runs).toBe(2)
      expect(await logged(s)).toEqual(['outer 2', 'inner 2'])
    })
  })

  test('one of two concurrent flows in a block fails: what the other still calls never takes effect', async ({
    expect,
  }) => {
    await scene(await sharedServer(MARIADB), { driver, max: 1, relay: { delayMs: 5 }, setup: LOG }, async (s) => {
      const mine = new Error('mine')
      let other: Promise<unknown> | undefined
      const told = s.db.transaction(async (tx) => {
        await log(tx, 'first')
        other = (async () => {
          for (let n = 0; n < 30; n++) await log(tx, `other ${n}`)
        })()
        other.catch(() => {})
        await Promise.all([other, sleep(15).then(() => Promise.reject(mine))])
      })
      expect(await failure(told)).toBe(mine)
      await failure(other as Promise<unknown>)
      await sleep(50)
      expect(await logged(s)).toEqual([])
    })
  })

  test('the same with calls that do not wait for one another', async ({ expect }) => {
    await scene(await sharedServer(MARIADB), { driver, max: 1, relay: { delayMs: 5 }, setup: LOG }, async (s) => {
      const mine = new Error('mine')
      const told = s.db.transaction(async (tx) => {
        await log(tx, 'first')
        const timer = setInterval(() => void log(tx, 'tick').catch(() => {}), 1)
        setTimeout(() => clearInterval(timer), 150)
        await sleep(20)
        throw mine
      })
      expect(await failure(told)).toBe(mine)
      await sleep(200)
      expect(await logged(s)).toEqual([])
    })
  })

  test('a statement that the block did not wait for is part of the transaction, if it was called before the end', async ({
    expect,
  }) => {
    await scene(await sharedServer(MARIADB), { driver, max: 1, setup: LOG }, async (s) => {
      let late: Promise<unknown> | undefined
      await s.db.transaction(async (tx) => {
        await log(tx, 'awaited')
        log(tx, 'not awaited').catch(() => {})
        log(tx, 'nor this').catch(() => {})
        setTimeout(() => void (late = failure(log(tx, 'too late'))), 30)
      })
      expect(await logged(s)).toEqual(['awaited', 'not awaited', 'nor this'])
      await until(() => late !== undefined)
      expect(await late).toMatchObject({ code: 'LEASE_RELEASED' })
    })
  })

  test('a deadlock of a statement that nobody waited for is no success: the block is run again', async ({ expect }) => {
    await scene(await sharedServer(MARIADB), { driver, setup: ROWS }, async (s) => {
      let runs = 0
      await withRival(s, async ({ provoke, strike }) => {
        await s.db.transaction(async (tx) => {
          await log(tx, `run ${++runs}`)
          await provoke(tx)
          strike(tx).catch(() => {}) // and COMMIT is in line behind it
        })
      })
      expect(runs).toBe(2)
      expect(await logged(s)).toEqual(['run 2'])
      expect(await s.root('SELECT * FROM {db}.t WHERE id <= 3')).toEqual(AFTER_RIVAL)
    })
  })

  test('a lost COMMIT is told from a statement that was lost behind it or before it', async ({ expect }) => {
    await scene(await sharedServer(MARIADB), { driver, max: 1, relay: {}, setup: LOG }, async (s) => {
      await s.db.query('SELECT 1')
      s.relay.onRequest = losing('unwatched', 'reset-after')
      let runs = 0
      await s.db.transaction(async (tx) => {
        await log(tx, `run ${++runs}`)
        log(tx, 'unwatched').catch(() => {}) // lost, and COMMIT is in line behind it
      })
      expect(runs).toBe(2)
      expect(await logged(s)).toEqual(['run 2', 'unwatched'])
    })
  })

  test('tx.stream: a deadlock in it is a deadlock of the transaction', async ({ expect }) => {
    await scene(await sharedServer(MARIADB), { driver, setup: ROWS }, async (s) => {
      await using rival = await s.db.acquire()
      await rival.query('BEGIN')
      await rival.query('UPDATE t SET v = v + 1000 WHERE id >= 2')
      let runs = 0
      let over: Promise<unknown> | undefined
      await s.db.transaction(async (tx) => {
        const run = ++runs
        await log(tx, `before ${run}`)
        await tx.query('UPDATE t SET v = v + 1 WHERE id = 1')
        if (run === 1) {
          over = rival.query('UPDATE t SET v = 0 WHERE id = 1 /* rival */').then(() => rival.query('COMMIT'))
          await untilRunning(s.server, s.account.user, 'rival')
        }
        const met = (async () => {
          for await (const _row of tx.stream('SELECT * FROM t WHERE id < 9 FOR UPDATE'));
        })()
        if (run === 1) {
          expect(await failure(met)).toMatchObject({ errno: 1213 })
          await holdfastError(log(tx, 'would autocommit'), 'TRANSACTION_LOST')
        } else await met
      })
      await over
      expect(runs).toBe(2)
      expect(await logged(s)).toEqual(['before 2'])
    })
  })

  test('tx.stream: a session that is lost in it is a loss before COMMIT, and the block is run again', async ({
    expect,
  }) => {
    await scene(await sharedServer(MARIADB), { driver, setup: LOG }, async (s) => {
      let runs = 0
      await s.db.transaction(async (tx) => {
        const run = ++runs
        await log(tx, `run ${run}`)
        let rows = 0
        for await (const _row of tx.stream("SELECT REPEAT('x', 1000) FROM seq_1_to_30000")) {
          if (++rows === 10 && run === 1) await s.server.kill(tx.threadId)
        }
        expect(rows).toBe(30_000)
      })
      expect(runs).toBe(2)
      expect(await logged(s)).toEqual(['run 2'])
    })
  })

  test('ROLLBACK that fails never hides what the block threw', async ({ expect }) => {
    await scene(await sharedServer(MARIADB), { driver, max: 2, relay: {}, setup: LOG }, async (s) => {
      const mine = new Error('mine')
      let runs = 0
      for (const spoil of [
        (tx: Transaction) => s.server.kill(tx.threadId),
        async () => void (s.relay.onRequest = losing('ROLLBACK', 'reset-before')),
        async () => void (s.relay.onRequest = losing('ROLLBACK', 'cut-after')),
      ]) {
        const told = s.db.transaction(async (tx) => {
          runs++
          await log(tx, 'undone')
          await spoil(tx)
          throw mine
        })
        expect(await failure(told)).toBe(mine)
      }
      expect(runs).toBe(3)
      expect(await logged(s)).toEqual([])
    })
  })

  test('ROLLBACK TO SAVEPOINT that fails: the cause is thrown, and the rest is not committed', async ({ expect }) => {
    await scene(await sharedServer(MARIADB), { driver, max: 2, relay: {}, setup: LOG }, async (s) => {
      const mine = new Error('mine')
      s.relay.onRequest = losing('ROLLBACK TO', 'reset-before')
      let runs = 0
      await s.db.transaction(async (tx) => {
        const run = ++runs
        await log(tx, `outer ${run}`)
        const inner = tx.transaction(async (within) => {
          await log(within, 'inner')
          throw mine
        })
        expect(await failure(inner)).toBe(mine)
        await log(tx, `end ${run}`)
      })
      expect(runs).toBe(2)
      expect(await logged(s)).toEqual(['outer 2', 'end 2'])
    })
  })

  test("an inner block's savepoint that is gone: nothing of it is committed", async ({ expect }) => {
    await scene(await sharedServer(MARIADB), { driver, max: 2, setup: LOG }, async (s) => {
      const mine = new Error('mine')
      const told = s.db.transaction(async (tx) => {
        await log(tx, 'outer')
        await tx
          .transaction(async (inner) => {
            await log(inner, 'to be undone')
            await inner.query('RELEASE SAVEPOINT holdfast_1') // whatever makes ROLLBACK TO fail
            throw mine
          })
          .catch(() => {})
        await log(tx, 'end')
      })
      await Promise.allSettled([told])
      expect(await logged(s)).not.toContain('to be undone')
    })
  })

  test('a transaction that is over, and one within that is over, run nothing more', async ({ expect }) => {
    await scene(await sharedServer(MARIADB), { driver, max: 1, setup: LOG }, async (s) => {
      let kept: Transaction | undefined
      let keptInner: Transaction | undefined
      await s.db.transaction(async (tx) => {
        kept = tx
        await tx.transaction(async (inner) => void (keptInner = inner))
        await holdfastError(log(keptInner as Transaction, 'its block is over'), 'LEASE_RELEASED')
      })
      const calls = [
        (tx: Transaction) => log(tx, 'no'),
        (tx: Transaction) => tx.transaction((inner) => log(inner, 'no')),
        async (tx: Transaction) => tx.stream('SELECT 1').next(),
      ]
      for (const call of calls) {
        await holdfastError(call(kept as Transaction), 'LEASE_RELEASED')
        await holdfastError(call(keptInner as Transaction), 'LEASE_RELEASED')
      }
      expect(await logged(s)).toEqual([])
    })
  })

  test('a single statement that times out takes the transaction with it', async ({ expect }) => {
    await scene(await sharedServer(MARIADB), { driver, max: 2, setup: LOG }, async (s) => {
      let runs = 0
      const told = s.db.transaction(async (tx) => {
        runs++
        await log(tx, 'undone')
        const slow = tx.query('SELECT SLEEP(20) AS slept', [], { timeoutMs: 200 })
        expect((await holdfastError(slow, 'QUERY_TIMEOUT')).effect).toBe('rolled-back')
        await holdfastError(log(tx, 'nor this'), 'TRANSACTION_LOST')
      })
      const error = await failure(told)
      expect(['TRANSACTION_LOST', 'QUERY_TIMEOUT']).toContain(error.code)
      expect(error.effect).toBe('rolled-back')
      expect(runs).toBe(1)
      await untilNotRunning(s.server, s.account.user, 'slept')
      expect(await logged(s)).toEqual([])
    })
  })

  test('a signal ends a transaction: while it waits in line, under a statement, between two', async ({ expect }) => {
    await scene(await sharedServer(MARIADB), { driver, max: 2, setup: ROWS }, async (s) => {
      const leases = await Promise.all([s.db.acquire(), s.db.acquire()])
      const waiting = new AbortController()
      const neverRun = s.db.transaction(async () => expect.unreachable(), { signal: waiting.signal })
      setTimeout(() => waiting.abort(), 50)
      expect((await holdfastError(neverRun, 'ABORTED')).effect).toBe('none')
      for (const lease of leases) lease.release()

      const running = new AbortController()
      const slow = s.db.transaction(
        async (tx) => {
          await log(tx, 'undone')
          await tx.query('SELECT SLEEP(20) AS slept')
        },
        { signal: running.signal },
      )
      slow.catch(() => {})
      await untilRunning(s.server, s.account.user, 'slept')
      running.abort(new Error('enough'))
      const error = await soon(holdfastError(slow, 'ABORTED'), 1_000)
      expect(error).toMatchObject({ effect: 'rolled-back', cause: running.signal.reason })
      await untilNotRunning(s.server, s.account.user, 'slept')

      const between = new AbortController()
      const cut = s.db.transaction(
        async (tx) => {
          await tx.query('UPDATE t SET v = 9 WHERE id = 1')
          between.abort()
          await log(tx, 'never')
        },
        { signal: between.signal },
      )
      await holdfastError(cut, 'ABORTED')
      await soon(s.db.query('UPDATE t SET v = v + 1 WHERE id = 1'), 1_500)
      expect(await logged(s)).toEqual([])
      expect(await s.root('SELECT v FROM {db}.t WHERE id = 1')).toEqual([{ v: 1 }])
    })
  })

  test('COMMIT that is cut by timeoutMs says unknown', async ({ expect }) => {
    await scene(await sharedServer(MARIADB), { driver, max: 2, relay: {}, setup: LOG }, async (s) => {
      await s.db.query('SELECT 1')
      s.relay.onRequest = losing('COMMIT', 'stall-after')
      const told = s.db.transaction((tx) => log(tx, 'done'), { timeoutMs: 500 })
      const error = await soon(holdfastError(told, 'COMMIT_UNKNOWN'), 2_000)
      expect(error.effect).toBe('unknown')
      expect(await logged(s)).toEqual(['done'])
    })
  })

  test('START TRANSACTION that is cut by timeoutMs, or a signal, had no effect', async ({ expect }) => {
    await scene(await sharedServer(MARIADB), { driver, max: 2, relay: {}, setup: LOG }, async (s) => {
      for (const bound of [() => ({ timeoutMs: 300 }), () => ({ signal: AbortSignal.timeout(300) })]) {
        await s.db.query('SELECT 1')
        s.relay.onRequest = losing('START TRANSACTION', 'stall-before')
        const told = s.db.transaction(async () => expect.unreachable(), bound())
        const error = await soon(failure(told), 2_000)
        expect(['QUERY_TIMEOUT', 'ABORTED']).toContain(error.code)
        expect(['none', 'rolled-back']).toContain(error.effect)
      }
      expect(s.relay.losses).toBe(2)
    })
  })

  test('a block that is slow is run again, too: acquireTimeoutMs is for acquiring', async ({ expect }) => {
    await scene(await sharedServer(MARIADB), { driver, acquireTimeoutMs: 400, setup: ROWS }, async (s) => {
      await until(() => Promise.all([1, 2].map(() => s.db.query('SELECT SLEEP(0.05)'))))
      let runs = 0
      await withRival(s, async ({ meet }) => {
        await s.db.transaction(async (tx) => {
          await log(tx, `run ${++runs}`)
          await sleep(600)
          await meet(tx)
        })
      })
      expect(runs).toBe(2)
      const slow = "SELECT SLEEP(IF(@@session.sort_buffer_size = 1, 0, 0.8)), 'slow' AS word"
      const read = s.db.query(slow, [], { idempotent: true })
      await s.server.kill(await untilRunning(s.server, s.account.user, 'slow'))
      expect((await read).rows[0].word).toBe('slow')
      const late = s.db.query(slow.replace('0.8', '0.9'), [], { idempotent: true })
      const id = await untilRunning(s.server, s.account.user, '0.9')
      await sleep(600)
      await s.server.kill(id)
      expect((await late).rows[0].word).toBe('slow')
    })
  })

  test('two transactions within at once do not undo each other', async ({ expect }) => {
    await scene(await sharedServer(MARIADB), { driver, max: 1, setup: LOG }, async (s) => {
      const mine = new Error('mine')
      let told: PromiseSettledResult<unknown>[] = []
      const whole = s.db.transaction(async (tx) => {
        const failing = tx.transaction(async (inner) => {
          await log(inner, 'a')
          await sleep(60)
          throw mine
        })
        const fine = tx.transaction(async (inner) => {
          await log(inner, 'b 1')
          await sleep(30)
          await log(inner, 'b 2')
        })
        told = await Promise.allSettled([failing, fine])
      })
      const [outcome] = await Promise.allSettled([whole])
      const kept = await logged(s)
      // Refusing the second is as good as running it after the first; doing half of it is not.
      expect(kept).not.toContain('a')
      if (outcome.status === 'fulfilled' && told[1]?.status === 'fulfilled') expect(kept).toEqual(['b 1', 'b 2'])
      else expect(kept).toEqual([])
    })
  })

  test('timeoutMs and a signal reject at once though ROLLBACK gets no answer', async ({ expect }) => {
    const options = { driver, max: 2, relay: {}, connectTimeoutMs: 500, setup: ROWS }
    await scene(await sharedServer(MARIADB), options, async (s) => {
      for (const bounds of [{ timeoutMs: 500 }, { signal: AbortSignal.timeout(500) }]) {
        await until(() => s.db.query('SELECT 1'), 5_000)
        const told = s.db.transaction(async (tx) => {
          await tx.query('UPDATE t SET v = v + 1 WHERE id = 1')
          s.relay.stall()
          await sleep(60_000, undefined, { ref: false })
        }, bounds)
        const error = await soon(failure(told), 3_000).finally(() => s.relay.resume())
        expect(['QUERY_TIMEOUT', 'ABORTED']).toContain(error.code)
        await until(async () => (await s.db.query('UPDATE t SET v = v + 10 WHERE id = 1')).affectedRows === 1, 6_000)
      }
      expect(await s.root('SELECT v FROM {db}.t WHERE id = 1')).toEqual([{ v: 20 }])
    })
  })

  test('fifty transactions at once at an account limit of 3 all succeed', async ({ expect }) => {
    const options = { driver, max: 10, account: { maxUserConnections: 3 }, setup: ROWS }
    await scene(await sharedServer(MARIADB), options, async (s) => {
      let runs = 0
      const all = Array.from({ length: 50 }, (_, n) =>
        s.db.transaction(async (tx) => {
          runs++
          const [first, second] = n % 2 ? [1, 2] : [2, 1] // crosswise: deadlocks are sure
          await tx.query('UPDATE t SET v = v + 1 WHERE id = ?', [first])
          await log(tx, `${n}`)
          await tx.query('UPDATE t SET v = v + 1 WHERE id = ?', [second])
        }),
      )
      await Promise.all(all)
      expect(runs).toBeGreaterThanOrEqual(50)
      expect((await logged(s)).map(Number).toSorted((a, b) => a - b)).toEqual([...Array(50).keys()])
      expect(await s.root('SELECT v FROM {db}.t WHERE id <= 2')).toEqual([{ v: 50 }, { v: 50 }])
      expect(s.db.stats().total.refused).toBeLessThanOrEqual(2)
    })
  })

  test('a transaction in a transaction of a pool of one fails in time, and names the lease that holds it', async ({
    expect,
  }) => {
    await scene(await sharedServer(MARIADB), { driver, max: 1, acquireTimeoutMs: 300, setup: LOG }, async (s) => {
      await until(() => s.db.query('SELECT 1')) // opening may take its time
      const told = s.db.transaction(async (tx) => {
        await log(tx, 'outer')
        await s.db.transaction((other) => log(other, 'not nested'))
      })
      const error = await holdfastError(told, 'POOL_ACQUIRE_TIMEOUT')
      expect(error.message).toContain('transactions.test.ts')
      expect(await logged(s)).toEqual([])
    })
  })

  test('money moved under KILLs and resets: none is made or lost, each transfer is done once or not at all', async ({
    expect,
  }) => {
    const setup = [...ROWS, 'CREATE TABLE {db}.done (n INT)', 'UPDATE {db}.t SET v = 100']
    await scene(await sharedServer(MARIADB), { driver, max: 5, relay: {}, setup }, async (s) => {
      const over = new AbortController()
      const chaos = (async () => {
        for (let round = 0; !over.signal.aborted; round++) {
          await sleep(25)
          if (round % 3 === 0) s.relay.reset()
          else for (const { id } of await s.server.sessions(s.account.user)) await s.server.kill(id).catch(() => {})
        }
      })()
      const told = new Map<number, string>()
      const worker = async (first: number): Promise<void> => {
        for (let n = first; n < first + 40; n++) {
          const [from, to] = [1 + (n % 7), 1 + ((n * 3 + 1) % 7)]
          const transfer = s.db.transaction(
            async (tx) => {
              await tx.query('UPDATE t SET v = v - 1 WHERE id = ?', [from])
              await tx.query('INSERT INTO done VALUES (?)', [n])
              await tx.transaction((inner) => inner.query('UPDATE t SET v = v + 1 WHERE id = ?', [to]))
            },
            { retries: 50 },
          )
          await transfer.then(
            () => told.set(n, 'done'),
            (error) => told.set(n, `${error.code} ${error.effect}`),
          )
        }
      }
      await soon(Promise.all([0, 1000, 2000, 3000, 4000].map(worker)), 20_000).finally(() => over.abort())
      await chaos
      const rows = await s.root<{ n: number; times: number }>('SELECT n, COUNT(*) times FROM {db}.done GROUP BY n')
      const times = new Map(rows.map((row) => [row.n, row.times]))
      const wrong = [...told].filter(([n, what]) => {
        const count = times.get(n) ?? 0
        return what === 'done' ? count !== 1 : what === 'COMMIT_UNKNOWN unknown' ? count > 1 : count !== 0
      })
      expect(wrong).toEqual([])
      expect(
        [...new Set(told.values())].filter((what) => !what.startsWith('done') && !what.startsWith('COMMIT')),
      ).toEqual([])
      expect(await s.root('SELECT SUM(v) + 0e0 AS total FROM {db}.t')).toEqual([{ total: 10_000 }])
    })
  })

  test('1020 under innodb_snapshot_isolation: the whole block is run again', async ({ expect, skip }) => {
    if (!availableServers().includes('mariadb-11.8')) skip()
    for (const kind of ['mariadb-11.8', MARIADB] as const) {
      const setting = { sessionInit: 'SET SESSION innodb_snapshot_isolation = ON' }
      await scene(
        await sharedServer(kind),
        { driver, setup: ROWS, ...(kind === MARIADB ? setting : {}) },
        async (s) => {
          let runs = 0
          await s.db.transaction(async (tx) => {
            const run = ++runs
            await log(tx, `run ${run}`)
            const { v } = (await tx.query('SELECT v FROM t WHERE id = 1')).rows[0]
            if (run === 1) await s.root('UPDATE {db}.t SET v = 10 WHERE id = 1')
            const told = await tx.query('UPDATE t SET v = ? WHERE id = 1', [v + 1]).catch((error) => error)
            if (run === 1) {
              expect(told).toMatchObject({ errno: 1020 })
              await holdfastError(log(tx, 'would autocommit'), 'TRANSACTION_LOST')
            }
          })
          expect(runs).toBe(2)
          expect(await logged(s)).toEqual(['run 2'])
          expect(await s.root('SELECT v FROM {db}.t WHERE id = 1')).toEqual([{ v: 11 }])
        },
      )
    }
  })
})
