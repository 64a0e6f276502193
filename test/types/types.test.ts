import { describe, expectTypeOf, it } from 'vitest'
import {
  createPool,
  HoldfastError,
  type AcquireOptions,
  type Budget,
  type Driver,
  type DrainOptions,
  type Effect,
  type ErrorCode,
  type EventName,
  type Events,
  type Fault,
  type Lease,
  type Limits,
  type Permit,
  type Pool,
  type PoolOptions,
  type QueryOptions,
  type Result,
  type Row,
  type Session,
  type Stats,
  type StatementOptions,
  type StreamOptions,
  type Transaction,
  type TransactionOptions,
} from '../../src/index.js'

interface Order {
  id: number
  total: string
}

/** Types only: what stands in here is compiled, and never run. */
const compiled: (program: (db: Pool) => unknown) => void = () => {}

describe('the types', () => {
  it('of rows are what the caller says, or anything', () => {
    compiled(async (db) => {
      expectTypeOf(db.query<Order>('SELECT id, total FROM orders')).resolves.toEqualTypeOf<Result<Order>>()
      expectTypeOf((await db.query<Order>('SELECT 1')).rows).toEqualTypeOf<Order[]>()
      expectTypeOf((await db.query('SELECT 1')).rows[0]).toBeAny()
      expectTypeOf(db.stream<Order>('SELECT 1')).toEqualTypeOf<AsyncIterableIterator<Order>>()
      for await (const order of db.stream<Order>('SELECT 1')) expectTypeOf(order).toEqualTypeOf<Order>()
      expectTypeOf<Row>().toBeAny()
    })
  })

  it('of a result tell what a write did', () => {
    expectTypeOf<Result['affectedRows']>().toBeNumber()
    expectTypeOf<Result['insertId']>().toEqualTypeOf<number | bigint>()
    expectTypeOf<Result<Order>['rows']>().toEqualTypeOf<Order[]>()
    expectTypeOf<Result['results']>().toEqualTypeOf<readonly Result[] | undefined>()
  })

  it('of a pool take a URL, options, or both', () => {
    expectTypeOf(createPool).toBeCallableWith('mysql://localhost/shop')
    expectTypeOf(createPool).toBeCallableWith({ host: 'localhost', max: 5 })
    compiled(() => [
      createPool('mysql://localhost/shop', { max: 5 }),
      createPool({ password: async () => 'secret', sessionInit: async (session) => session.query('SELECT 1') }),
      createPool({ sessionInit: ['SET @a = 1', 'SET @b = 2'], driver: 'mariadb', onLeak: 'reclaim' }),
    ])
    expectTypeOf(createPool).returns.toEqualTypeOf<Pool>()
  })

  it('refuse what a pool or a call does not know', () => {
    compiled((db) => [
      // @ts-expect-error -- it is called max
      createPool({ connectionLimit: 5 }),
      // @ts-expect-error
      createPool({ max: '5' }),
      // @ts-expect-error
      createPool({ driver: 'pg' }),
      // @ts-expect-error
      createPool({ onLeak: 'ignore' }),
      // @ts-expect-error -- it is called timeoutMs
      db.query('SELECT 1', [], { timeout: 5 }),
      // @ts-expect-error -- no session is waited for: idempotent is for a statement of the pool
      db.acquire({ idempotent: true }),
      // @ts-expect-error
      db.transaction(async () => 1, { isolation: 'snapshot' }),
      // @ts-expect-error
      db.drain({ timeoutMs: '5 s' }),
      // @ts-expect-error -- inside a transaction the block as a whole is run again
      db.transaction((tx) => tx.query('SELECT 1', [], { idempotent: true })),
      // @ts-expect-error
      db.stream('SELECT 1', [], { idempotent: true }),
      // @ts-expect-error -- a block must be waited for
      db.transaction(() => 1),
    ])
  })

  it('of a block give what it returns', () => {
    compiled((db) => {
      expectTypeOf(db.use(async () => 7)).resolves.toBeNumber()
      expectTypeOf(db.transaction(async () => 'done')).resolves.toBeString()
      expectTypeOf(db.transaction((tx) => tx.transaction(async () => true))).resolves.toBeBoolean()
      expectTypeOf<Parameters<Parameters<Pool['use']>[0]>[0]>().toEqualTypeOf<Lease>()
      expectTypeOf<Parameters<Parameters<Pool['transaction']>[0]>[0]>().toEqualTypeOf<Transaction>()
    })
  })

  it('let a function take a pool, a lease or a transaction', () => {
    type Runs = Pick<Pool | Lease | Transaction, 'query' | 'stream'>
    expectTypeOf<Pool>().toExtend<Runs>()
    expectTypeOf<Lease>().toExtend<Runs>()
    expectTypeOf<Transaction>().toExtend<Runs>()
    compiled(async (db) => {
      const count = async (on: Pool | Lease | Transaction): Promise<number> =>
        (await on.query<{ n: number }>('SELECT COUNT(*) AS n FROM orders')).rows[0]?.n ?? 0
      await count(db)
      await db.use(count)
      await db.transaction(count)
    })
  })

  it('let pools and leases be disposed of', () => {
    expectTypeOf<Pool>().toExtend<AsyncDisposable>()
    expectTypeOf<Lease>().toExtend<AsyncDisposable>()
    expectTypeOf<Lease>().toExtend<Disposable>()
    compiled(async (db) => {
      await using lease = await db.acquire({ timeoutMs: 2_000 })
      using other = await db.acquire()
      expectTypeOf(lease).toEqualTypeOf(other)
    })
  })

  it('of a transaction leave its end to the block', () => {
    expectTypeOf<Transaction>().not.toHaveProperty('release')
    expectTypeOf<Transaction>().not.toHaveProperty('commit')
    expectTypeOf<Transaction>().toHaveProperty('threadId')
  })

  it('of errors tell the codes and effects apart', () => {
    expectTypeOf<HoldfastError>().toExtend<Error>()
    expectTypeOf<HoldfastError['code']>().toEqualTypeOf<ErrorCode>()
    expectTypeOf<HoldfastError['effect']>().toEqualTypeOf<'none' | 'rolled-back' | 'unknown'>()
    expectTypeOf<'COMMIT_UNKNOWN'>().toExtend<ErrorCode>()
    expectTypeOf<'ER_DUP_ENTRY'>().not.toExtend<ErrorCode>()
    expectTypeOf<Fault['effect']>().toEqualTypeOf<Effect>()
  })

  it('of what is told are read-only', () => {
    expectTypeOf<ReturnType<Pool['stats']>>().toEqualTypeOf<Stats>()
    expectTypeOf<ReturnType<Pool['limits']>>().toEqualTypeOf<Limits | undefined>()
    expectTypeOf<Limits['server']['flavour']>().toEqualTypeOf<'mariadb' | 'mysql'>()
    expectTypeOf<Events['acquired']['waitedMs']>().toBeNumber()
    expectTypeOf<'leak'>().toExtend<EventName>()
    compiled((db) => {
      // @ts-expect-error
      db.stats().idle = 5
    })
  })

  it('of the ports can be implemented', () => {
    const revoked = new AbortController().signal
    const permit = { revoked, idle: false, [Symbol.dispose](): void {} } satisfies Permit
    const budget = { reserve: async () => permit } satisfies Budget
    const driver = { name: 'mine', connect: (_permit, _signal) => new Promise<Session>(() => {}) } satisfies Driver
    expectTypeOf({ budget, driver }).toExtend<PoolOptions>()
  })

  it('of options can be named', () => {
    expectTypeOf<Parameters<Pool['acquire']>[0]>().toEqualTypeOf<AcquireOptions | undefined>()
    expectTypeOf<Parameters<Pool['drain']>[0]>().toEqualTypeOf<DrainOptions | undefined>()
    expectTypeOf<Parameters<Pool['query']>[2]>().toEqualTypeOf<QueryOptions | undefined>()
    expectTypeOf<Parameters<Pool['stream']>[2]>().toEqualTypeOf<StreamOptions | undefined>()
    expectTypeOf<Parameters<Pool['transaction']>[1]>().toEqualTypeOf<TransactionOptions | undefined>()
    expectTypeOf<Parameters<Lease['query']>[2]>().toEqualTypeOf<StatementOptions | undefined>()
    expectTypeOf<Parameters<Transaction['query']>[2]>().toEqualTypeOf<StatementOptions | undefined>()
  })
})
