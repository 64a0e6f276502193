import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import { HoldfastError } from '../errors.js'
import { checkCallOptions, resolveOptions, type PoolOptions } from './options.js'

function refusal(task: () => unknown): string {
  try {
    task()
  } catch (error) {
    expect(error).toBeInstanceOf(HoldfastError)
    expect((error as HoldfastError).code).toBe('OPTION_INVALID')
    expect((error as HoldfastError).effect).toBe('none')
    return (error as HoldfastError).message
  }
  throw new Error('it was taken')
}

const refused = (options: object): string => refusal(() => resolveOptions(options))

describe('the options of a pool', () => {
  it('have defaults', () => {
    expect(resolveOptions({})).toMatchObject({
      host: 'localhost',
      port: 3306,
      max: 10,
      minIdle: 0,
      acquireTimeoutMs: 10_000,
      connectTimeoutMs: 5_000,
      queryTimeoutMs: Infinity,
      queueLimit: 10_000,
      idleTimeoutMs: 60_000,
      maxLifetimeMs: 1_800_000,
      trustMs: 500,
      pingAfterMs: 30_000,
      leakAfterMs: 60_000,
      onLeak: 'warn',
      lanes: 'reads',
      name: 'pool',
    })
  })

  it('are read from a URL, percent-encoding and all', () => {
    expect(
      resolveOptions('mysql://us%40er:p%2Fa%3Ass@db.example:3307/my%20shop?max=5&acquireTimeoutMs=2000&ssl=true'),
    ).toMatchObject({
      host: 'db.example',
      port: 3307,
      user: 'us@er',
      password: 'p/a:ss',
      database: 'my shop',
      max: 5,
      acquireTimeoutMs: 2_000,
      ssl: true,
      name: 'my shop',
    })
  })

  it('take an IPv6 address', () => {
    expect(resolveOptions('mysql://root@[::1]/test').host).toBe('::1')
  })

  it('win over the URL', () => {
    expect(resolveOptions('mysql://a:b@c/d', { user: 'other', max: 3 })).toMatchObject({
      user: 'other',
      max: 3,
      host: 'c',
    })
    expect(resolveOptions({ url: 'mysql://a:b@c/d', host: 'e' }).host).toBe('e')
  })

  it('take undefined for a default', () => {
    expect(resolveOptions({ max: undefined } as unknown as PoolOptions).max).toBe(10)
  })

  it('are refused when unknown, with the nearest name', () => {
    expect(refused({ acquireTimeoutMS: 500 })).toContain("did you mean 'acquireTimeoutMs'")
    expect(refused({ hots: 'x' })).toContain("did you mean 'host'")
    expect(refused({ connectionLimit: 10 })).toContain("did you mean 'max'")
    expect(refused({ idleTimeout: 10_000 })).toContain("did you mean 'idleTimeoutMs'")
    expect(refused({ uri: 'mysql://a/b' })).toContain("did you mean 'url'")
    expect(refused({ completelyElse: 1 })).toContain('known are url, host')
    expect(refusal(() => resolveOptions('mysql://a/b?maxx=3'))).toContain("did you mean 'max'")
  })

  it.each(['constructor', 'toString', '__proto__', 'hasOwnProperty'])('do not take %s for one of theirs', (name) => {
    expect(refused(JSON.parse(`{ "${name}": 1 }`) as object)).toContain(`unknown option '${name}'`)
  })

  it.each([
    ['acquireTimeoutMs', 10, '10_000'],
    ['connectTimeoutMs', 5, '5_000'],
    ['queryTimeoutMs', 30, '30_000'],
    ['idleTimeoutMs', 60, '60_000'],
    ['maxLifetimeMs', 1_800, '1_800_000'],
    ['leakAfterMs', 2, '2_000'],
  ])('are refused when %s is given in seconds', (name, seconds, fix) => {
    expect(refused({ [name]: seconds })).toMatch(
      new RegExp(`${name} is in milliseconds: .*looks like seconds; write ${fix}`),
    )
  })

  it('are refused when they are out of range, or of another type', () => {
    expect(refused({ max: 0 })).toContain('max must be a whole number of at least 1, not 0')
    expect(refused({ max: 2.5 })).toContain('max must be a whole number')
    expect(refused({ max: '10' })).toContain("not '10'")
    expect(refused({ max: 2, minIdle: 3 })).toContain('minIdle (3) is more than max (2)')
    expect(refused({ port: 70_000 })).toContain('from 1 to 65535')
    expect(refused({ acquireTimeoutMs: -1 })).toContain('a number of milliseconds')
    expect(refused({ acquireTimeoutMs: NaN })).toContain('a number of milliseconds')
    expect(refused({ acquireTimeoutMs: '10s' })).toContain('a number of milliseconds')
    expect(refused({ onLeak: 'ignore' })).toContain("onLeak must be 'warn' or 'reclaim'")
    expect(refused({ driver: 'postgres' })).toContain("driver must be 'mysql2', 'mariadb', or an object with connect()")
    expect(refused({ sessionInit: 5 })).toContain('sessionInit must be')
    expect(refused({ driverOptions: { host: 'x' } })).toContain(
      "driverOptions.host is not for the driver: use the pool's own option 'host'",
    )
    expect(refused({ driverOptions: { connectionLimit: 5 } })).toContain("own option 'max'")
    expect(refused({ driverOptions: { stream: () => {} } })).toContain('brings its own socket')
    expect(refused({ host: 5 })).toContain('host must be a string')
    expect(refusal(() => resolveOptions(null as never))).toContain('createPool takes a URL')
  })

  it('never show a password, or the URL', () => {
    const secret = 'hunter2'
    for (const url of [
      `mysql://u:${secret}@[bad/db`,
      `mysql://u:1?${secret}@h/db`,
      `mysql://u:1/${secret}@h/db`,
      `mysql://u:1#${secret}@h/db`,
      `postgres://u:${secret}@h/db`,
      secret,
      `mysql://u:${secret}%E0%A4%A@h/db`,
    ]) {
      let shown = ''
      try {
        resolveOptions(url)
      } catch (error) {
        shown = inspect(error, { depth: 10 })
      }
      expect(shown).toContain('OPTION_INVALID')
      expect(shown).not.toContain(secret)
    }
    expect(refused({ password: 5 })).not.toContain('5')
  })
})

describe('the options of a call', () => {
  it('are refused when unknown, with the nearest name', () => {
    expect(refusal(() => checkCallOptions({ timeout: 5 }, ['timeoutMs', 'signal'], 'query'))).toContain(
      "unknown option 'timeout' of query(): did you mean 'timeoutMs'",
    )
  })

  it('are refused when a time or a signal is none', () => {
    expect(refusal(() => checkCallOptions({ timeoutMs: 0 }, ['timeoutMs'], 'query'))).toContain('above 0')
    expect(refusal(() => checkCallOptions({ timeoutMs: '5s' }, ['timeoutMs'], 'query'))).toContain("not '5s'")
    expect(refusal(() => checkCallOptions({ signal: {} }, ['signal'], 'query'))).toContain('AbortSignal')
  })
})
