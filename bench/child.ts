// One section in a process of its own, so that none runs on the heap, and on the compiled code, that another has left.

import { argv } from 'node:process'
import type { Setting } from './pools.js'
import { SECTIONS } from './sections.js'

const [, , name = '', setting = ''] = argv
const tables = await SECTIONS.get(name)?.run(JSON.parse(setting) as Setting)
process.send?.(tables)
process.disconnect()
