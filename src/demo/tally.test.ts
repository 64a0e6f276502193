import { describe, expect, test } from 'vitest'
import { HoldfastError } from '../index.js'
import { audit, failureOf, follow, markOf, Tally, type Call } from './tally.js'

const answered = (token: string, ms = 10): Call => ({ token, end: 'answered', ms })
const failed = (token: string, error: unknown): Call => ({ token, end: failureOf(error), ms: 20 })
const reset = Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET', errno: -104 })
const deadlock = Object.assign(new Error('Deadlock found'), { code: 'ER_LOCK_DEADLOCK', errno: 1213 })
const unknown = new HoldfastError('SESSION_LOST', 'the connection ended', { effect: 'unknown' })

describe('an error, as its catcher sees it', () => {
  test.each([
    [reset, 'ECONNRESET'],
    [deadlock, '1213 ER_LOCK_DEADLOCK'],
    [new Error('connection is closed'), '"connection is closed"'],
    [unknown, 'SESSION_LOST'],
  ])('%s is called %s', (error, name) => expect(failureOf(error).name).toBe(name))

  test('says what the server may have done only when it is one of ours', () => {
    expect(failureOf(unknown).effect).toBe('unknown')
    expect(failureOf(reset).effect).toBeUndefined()
  })
})

describe('a tally', () => {
  test('counts', () => {
    const tally = new Tally([
      answered('a'),
      answered('b', 640),
      failed('c', reset),
      { token: 'd', end: 'waiting', ms: 5000 },
    ])
    expect(tally.facts).toEqual({ asked: 4, answered: 2, failed: { ECONNRESET: 1 }, waiting: 1, slowestMs: 5000 })
    expect(tally.sentence()).toBe('1 of 4 failed: ECONNRESET; 1 of 4 hang: no answer and no error for 5.0 s')
    expect(new Tally([answered('a', 640)]).sentence('done')).toBe('1 of 1 done within 0.6 s')
  })

  test('is well when all were answered, and told only when each error says what became of the work', () => {
    expect(markOf('driver', new Tally([answered('a')]))).toBe('well')
    expect(markOf('driver', new Tally([failed('a', reset)]))).toBe('failed')
    expect(markOf('holdfast', new Tally([failed('a', unknown)]))).toBe('told')
    expect(markOf('holdfast', new Tally([{ token: 'a', end: 'waiting', ms: 1 }]))).toBe('failed')
  })

  test('follows work to its end, or for as long as it has patience', async () => {
    expect(await follow('a', Promise.resolve(1))).toMatchObject({ token: 'a', end: 'answered' })
    expect(await follow('a', Promise.reject(reset))).toMatchObject({ end: { name: 'ECONNRESET' } })
    expect(await follow('a', new Promise(() => {}), 5)).toMatchObject({ end: 'waiting' })
  })
})

describe('the audit', () => {
  const rows = new Map([
    ['done', 2],
    ['half', 1],
    ['twice', 4],
  ])

  test('finds what was done, by half, and twice', () => {
    const calls = ['done', 'half', 'twice', 'not'].map((token) => failed(token, reset))
    expect(audit(calls, rows, 2)).toEqual({ done: 2, half: 1, twice: 1, untrue: 0 })
  })

  test('finds who was told what is not so', () => {
    const rolledBack = new HoldfastError('TRANSACTION_LOST', 'lost', { effect: 'rolled-back' })
    expect(audit([answered('done'), failed('not', rolledBack), failed('done', unknown)], rows, 2).untrue).toBe(0)
    expect(audit([answered('not'), answered('half'), failed('done', rolledBack)], rows, 2).untrue).toBe(3)
  })
})
