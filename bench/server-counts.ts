import { mysql2, type Setting } from './pools.js'

/** How many commands, of whatever kind, the server got for each of `count` calls, by its own counters. */
export async function roundTrips(setting: Setting, count: number, work: () => Promise<unknown>): Promise<number> {
  const { host, port, user, password } = setting
  const observer = await mysql2.createConnection({ host, port, user, password })
  try {
    const before = await commands(observer)
    await work()
    return ((await commands(observer)) - before - 1) / count // the question itself is one
  } finally {
    await observer.end()
  }
}

async function commands(observer: mysql2.Connection): Promise<number> {
  // Questions does not count a ping; a reset is counted twice in Questions and Com_admin_commands, once among these.
  const [rows] = await observer.query<mysql2.RowDataPacket[]>("SHOW GLOBAL STATUS LIKE 'Com\\_%'")
  return rows.reduce((sum, row) => sum + Number(row['Value']), 0)
}
