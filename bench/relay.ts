// A relay in a process of its own: its CPU is nobody's who is measured.

import { argv } from 'node:process'
import { startRelay } from '../src/testing/relay.js'

const [, , target = '', delayMs = ''] = argv
const relay = await startRelay(JSON.parse(target) as { host: string; port: number }, { delayMs: Number(delayMs) })
process.once('disconnect', () => process.exit())
process.send?.({ host: relay.host, port: relay.port })
