// A program with a pool and a burst of reads, in a process of its own.

import { once } from 'node:events'
import { contender, type ContenderOptions } from './contender.js'
import { follow } from './tally.js'

export interface BurstTask extends ContenderOptions {
  readonly queries: number
}

const { queries, ...options } = JSON.parse(process.argv[2] as string) as BurstTask

process.on('message', () => {}) // lives until it is killed, as a service does: an idle pool of Holdfast would let it end
process.send?.('ready')
await once(process, 'message')
const pool = contender(options)
const calls = Array.from({ length: queries }, (_, index) => follow(`read ${index}`, pool.read('SELECT SLEEP(0.02)')))
process.send?.(await Promise.all(calls))
