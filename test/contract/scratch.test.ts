import { test, expect } from 'vitest'
import { mysql2Driver } from '../../src/drivers/mysql2.js'
import { startServer } from '../../src/testing/server.js'
import { systemClock } from '../../src/clock.js'

const permit = { revoked: new AbortController().signal, idle: false, [Symbol.dispose]() {} }
test('smoke', async () => {
  const server = await startServer('mariadb-10.11')
  const account = await server.createAccount()
  const driver = mysql2Driver({ ...account.config })
  const s = await driver.connect(permit, new AbortController().signal)
  console.log(s.threadId, s.server)
  console.log(await s.query({ sql: 'select 1 a, ? b', values: ['x'] }))
  console.log(await s.query({ sql: 'select ? b', values: ['x'], prepare: true }))
  await s.query({ sql: 'selec 1' }).catch((e) => console.log(e.kind, e.session, e.effect, e.error))
  const rows = s.stream({ sql: 'select seq from seq_1_to_10' })
  for (;;) { const r = await rows.next(); if (r.done) break; console.log(r.value) }
  await s.ping(); await s.reset()
  const t = Date.now()
  await s.close(1000)
  console.log('closed', Date.now() - t, await server.sessions(account.user), await s.ended)
  const bad = mysql2Driver({ ...account.config, password: 'no' })
  await bad.connect(permit, new AbortController().signal).catch((e) => console.log(e.kind, e.message))
  const s2 = await driver.connect(permit, new AbortController().signal)
  const p = s2.query({ sql: 'select sleep(5)' }).catch((e) => e)
  await new Promise((r) => setTimeout(r, 50))
  await server.kill(s2.threadId)
  const e = await p
  console.log(e.kind, e.effect, e.session, e.message, await s2.ended)
  await server.stop('SIGKILL')
})
