// A program whose connections idle while its process stands still; the first thing that it does when it wakes is write.

import { contender, type ContenderOptions } from './contender.js'
import { follow } from './tally.js'

export interface IdleTask extends ContenderOptions {
  readonly sessions: number
  readonly pauseMs: number
}

const TICK_MS = 20

const { sessions, pauseMs, ...options } = JSON.parse(process.argv[2] as string) as IdleTask
const pool = contender(options)

async function write(): Promise<void> {
  const calls = Array.from({ length: sessions }, (_, index) => {
    const token = `write ${index}`
    return follow(token, pool.write('INSERT INTO work (token) VALUES (?)', [token]))
  })
  process.send?.(await Promise.all(calls))
}

/** As a job does that has become due: its timer runs before the news of the sockets is read. */
function writeOnWaking(): void {
  let last = performance.now()
  const ticker = setInterval(() => {
    const now = performance.now()
    if (now - last > pauseMs / 2) {
      clearInterval(ticker)
      void write()
    }
    last = now
  }, TICK_MS)
}

await Promise.all(Array.from({ length: sessions }, () => pool.read('SELECT SLEEP(0.1)')))
process.once('message', ({ how }: { how: 'block' | 'freeze' }) => {
  if (how === 'freeze') {
    writeOnWaking()
    process.send?.('ready to be frozen')
    return
  }
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, pauseMs) // a long computation, say
  void write()
})
process.send?.('idle')
