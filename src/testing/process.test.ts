import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { isAlive } from './offspring.js'
import { startProcess, startScript } from './process.js'

const echo = `process.on('message', (message) => process.send({ echo: message, args: process.argv.slice(1) }))`

test('a process answers what it is asked, in order', async () => {
  await using child = startScript(echo, { args: ['one', 'two'] })
  child.send({ n: 1 })
  child.send({ n: 2 })
  expect(await child.next()).toEqual({ echo: { n: 1 }, args: ['one', 'two'] })
  expect(await child.next()).toMatchObject({ echo: { n: 2 } })
})

test('a script file is run as well, by its path or its URL, with an environment and options of Node', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'script-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const file = join(folder, 'script.mjs')
  writeFileSync(file, `process.send([process.argv[2], process.env.COLOUR, process.execArgv])`)
  for (const script of [file, pathToFileURL(file)]) {
    await using child = startProcess(script, {
      args: ['one'],
      env: { COLOUR: 'blue' },
      node: [process.execPath, '--no-warnings'],
    })
    expect(await child.next()).toEqual(['one', 'blue', ['--no-warnings']])
    expect(await child.exited).toEqual({ code: 0, signal: null })
  }
})

test('a frozen process does nothing until it is thawed', async () => {
  await using child = startScript(`setInterval(() => process.send('tick'), 5)`)
  await child.next()
  await child.freeze()
  await sleep(20)
  while (await child.next(20).catch(() => undefined)); // sent before it was stopped
  await expect(child.next(50)).rejects.toThrow('no message within 50 ms')
  child.thaw()
  expect(await child.next()).toBe('tick')
})

test('one that fails says why', async () => {
  await using child = startScript(`throw new Error('out of cheese')`)
  await expect(child.next()).rejects.toThrow('out of cheese')
  expect(await child.exited).toEqual({ code: 1, signal: null })
})

test('it is gone after its block, frozen or not', async () => {
  let pid: number
  {
    await using child = startScript(`process.send('ready'); setInterval(() => {}, 1000)`)
    await child.next()
    await child.freeze()
    pid = child.pid
  }
  expect(isAlive(pid)).toBe(false)
})
