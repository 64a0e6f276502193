import { expect, test } from 'vitest'
import { FakeClock } from './fake-clock.js'

test('runs what is due, in the order of time and then of setting, and nothing before its time', async () => {
  const clock = new FakeClock()
  const ran: string[] = []
  clock.after(20, () => ran.push(`b at ${clock.now()}`))
  clock.after(10, () => ran.push(`a at ${clock.now()}`))
  clock.after(20, () => ran.push(`c at ${clock.now()}`))
  clock.after(31, () => ran.push('too early'))
  await clock.advance(30)
  expect(ran).toEqual(['a at 10', 'b at 20', 'c at 20'])
  expect(clock.now()).toBe(30)
  expect(clock.pending).toBe(1)
})

test('lets what follows from a task happen before the next task', async () => {
  const clock = new FakeClock()
  const ran: string[] = []
  clock.after(1, () => {
    void Promise.resolve()
      .then(() => Promise.resolve())
      .then(() => setImmediate(() => ran.push('what follows')))
  })
  clock.after(1, () => ran.push('next task'))
  await clock.advance(1)
  expect(ran).toEqual(['what follows', 'next task'])
})

test('runs within one advance what a task sets within it', async () => {
  const clock = new FakeClock()
  let ticks = 0
  const tick = (): void => {
    ticks++
    clock.after(10, tick)
  }
  clock.after(10, tick)
  await clock.advance(100)
  expect(ticks).toBe(10)
  expect(clock.pending).toBe(1)
})

test('a cancelled timer never runs, and cancelling again does nothing', async () => {
  const clock = new FakeClock()
  const task = (): void => expect.unreachable()
  const timer = clock.after(5, task)
  timer.cancel()
  timer.cancel()
  await clock.advance(10)
  expect(clock.pending).toBe(0)
})

test('a task that cancels one of its own time is obeyed', async () => {
  const clock = new FakeClock()
  clock.after(5, () => second.cancel())
  const second = clock.after(5, () => expect.unreachable())
  await clock.advance(5)
  expect(clock.pending).toBe(0)
})

test('after a jump, overdue timers run late, at the time that it is by then', async () => {
  const clock = new FakeClock()
  const ran: number[] = []
  clock.after(100, () => ran.push(clock.now()))
  clock.jump(5000)
  expect(ran).toEqual([])
  await clock.advance(0)
  expect(ran).toEqual([5000])
})
