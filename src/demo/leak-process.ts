// A program that runs out of connections, because a part of it does not give them back.

import { subscribe } from 'node:diagnostics_channel'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Events } from '../index.js'
import { contender, type Contender, type ContenderOptions, type Held } from './contender.js'
import { follow, type Call } from './tally.js'

export interface LeakTask extends ContenderOptions {
  /** The module of the forgetful part. */
  readonly file: string
  /** Whether it also drops what it forgot. */
  readonly dropped: boolean
  readonly patienceMs: number
  readonly sessions: number
}

export interface LeakReport {
  /** A read that came after. */
  readonly call: Call
  /** Where leaked connections were taken, as far as anybody said. */
  readonly takenAt: readonly string[]
  /** References that the program still has. */
  readonly kept: number
}

interface Forgetful {
  readonly report: (pool: Contender) => Promise<Held>
}

const { file, dropped, patienceMs, sessions, ...options } = JSON.parse(process.argv[2] as string) as LeakTask
const { report } = (await import(file)) as Forgetful
const pool = contender(options)
const takenAt: string[] = []
subscribe('holdfast:leak', (message) => takenAt.push((message as Events['leak']).takenAt))

let forgotten: Held[] = await Promise.all(Array.from({ length: sessions }, () => report(pool)))
if (dropped) forgotten = []

const collector = dropped ? setInterval(() => globalThis.gc?.(), 50) : undefined
const call = await follow('read', pool.read('SELECT 1'), patienceMs)
clearInterval(collector)
const began = performance.now()
while (call.end === 'answered' && takenAt.length < sessions && performance.now() - began < 1_000) await sleep(20)
process.send?.({ call, takenAt, kept: forgotten.length } satisfies LeakReport)
