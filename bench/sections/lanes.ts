import { alone } from '../lanes/alone.js'
import { acrossRelay, onLoopback, onOneSession } from '../lanes/crowds.js'
import { leases } from '../lanes/leases.js'
import { memory } from '../lanes/memory.js'
import { withDozers, withJoiners, withRareDozes, withSleepers } from '../lanes/mixed.js'
import { makeTables } from '../lanes/readers.js'
import type { Setting } from '../pools.js'
import type { Table } from '../table.js'

/** Reads that share sessions, beside the pools of both drivers with as many. */
export async function lanes(setting: Setting): Promise<Table[]> {
  await makeTables(setting)
  // What the second server can say nothing new about is left out.
  const isMain = setting.server.startsWith('MariaDB')
  const isBrief = setting.quick || !isMain
  const tables = [
    await acrossRelay(setting, 3),
    await onLoopback(setting, 3),
    await onLoopback(setting, 10),
    await onOneSession(setting),
    await withDozers(setting),
    ...(isBrief ? [] : [await withSleepers(setting), await withJoiners(setting)]),
    await leases(setting),
    ...(isMain ? [await withRareDozes(setting), await memory(setting)] : []),
  ]
  for (const driver of setting.drivers) tables.push(await alone(setting, driver))
  return tables
}
