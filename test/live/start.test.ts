import { spawn } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { fileURLToPath } from 'node:url'
import { describe, expect, onTestFinished, test } from 'vitest'
import { availableServers, startServer } from '../../src/testing/server.js'

const START = fileURLToPath(new URL('../../scripts/start.mjs', import.meta.url))

interface Ended {
  readonly status: number | null
  readonly stdout: string
  readonly stderr: string
  readonly pid: number
}

/** `npm start -- <args>` */
function start(
  args: readonly string[],
  signal?: { readonly name: NodeJS.Signals; readonly when: RegExp },
): Promise<Ended> {
  const child = spawn(process.execPath, [START, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  let [stdout, stderr] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
    if (signal?.when.test(stderr)) child.kill(signal.name)
  })
  return new Promise((resolve) => {
    child.once('close', (status) => resolve({ status, stdout, stderr, pid: child.pid as number }))
  })
}

/** Of its servers and its own: all bear its pid in their names. */
function foldersOf({ pid }: Ended): string[] {
  return readdirSync(tmpdir()).filter((name) => name.startsWith(`holdfast-${pid}-`))
}

interface Results {
  readonly asPromised: boolean
  readonly reports: readonly {
    readonly driver: string
    readonly rows: readonly {
      readonly topic: string
      readonly what: string
      readonly driver: { readonly mark: string; readonly facts: Record<string, unknown> }
      readonly holdfast: { readonly mark: string; readonly facts: Record<string, unknown>; readonly broken: string[] }
    }[]
  }[]
}

describe.runIf(availableServers().includes('mariadb-10.11'))('npm start', () => {
  test('shows that Holdfast keeps its promises, and leaves nothing behind', { timeout: 120_000 }, async () => {
    const began = performance.now()
    const ended = await start(['--json'])
    expect(ended.stderr).toContain('1226: 3 processes')
    expect(ended.status, ended.stderr).not.toBe(2)
    const results = JSON.parse(ended.stdout) as Results
    const rows = results.reports[0]?.rows ?? []
    expect(rows.filter(({ holdfast }) => holdfast.broken.length > 0)).toEqual([])
    expect(results.asPromised).toBe(true)
    expect(ended.status).toBe(0)
    expect(performance.now() - began).toBeLessThan(60_000)

    const count = (topic: string): number => rows.filter((row) => row.topic === topic).length
    expect(['1226', '2006', '2013', 'leak', 'deadlock'].map(count)).toEqual([2, 4, 13, 2, 1])
    // What is lost in the midst of a write, or at COMMIT, cannot be mended, and is told; all else is well.
    const notWell = rows.filter(({ holdfast }) => holdfast.mark !== 'well')
    expect(notWell.map(({ what, holdfast }) => [what, holdfast.mark])).toEqual(
      ['KILL', 'network reset', 'server restart'].flatMap((what) => [
        [`${what} during a write`, 'told'],
        [`${what} at its COMMIT`, 'told'],
      ]),
    )
    // A comparison in which the driver's own pool fails nowhere would compare nothing.
    expect(rows.filter(({ driver }) => driver.mark === 'failed').length).toBeGreaterThan(15)
    expect(foldersOf(ended)).toEqual([])
  })

  test('on Ctrl-C it is gone, with its servers and processes', async () => {
    const ended = await start([], { name: 'SIGINT', when: /2006: / })
    expect(ended.status).toBe(130)
    expect(foldersOf(ended)).toEqual([])
  })

  test('on a server of the user it says what it found, and leaves no session', { timeout: 60_000 }, async () => {
    await using server = await startServer('mariadb-10.11')
    const account = await server.createAccount({ maxUserConnections: 4 })
    const ended = await start([account.url])
    expect(ended.status, ended.stdout + ended.stderr).toBe(0)
    expect(ended.stdout).toMatch(/connections of this account +4; 0 held by other programs now/)
    expect(ended.stdout).toContain('✓ 50 of 50 answered')
    expect(ended.stdout).toContain('Nothing was created or changed.')
    expect(ended.stdout + ended.stderr).not.toContain(account.password)
    await server.untilNoSessions(account.user)
  })

  test('a wrong password is a clear sentence, without the password', async () => {
    await using server = await startServer('mariadb-10.11')
    const account = await server.createAccount()
    const url = new URL(account.url)
    url.password = 'hunter2'
    const ended = await start([url.href])
    expect(ended.status).toBe(2)
    expect(ended.stdout).toBe('')
    expect(ended.stderr).toMatch(
      /Access denied for user 'app1'@'localhost' \(using password: YES\) \(1045\); check user, password/,
    )
    expect(ended.stderr).not.toMatch(/hunter2|mysql:\/\//)
    expect(ended.stderr).not.toContain('    at ') // no stack
  })

  test('bad usage is told at once', async () => {
    const ended = await start(['--drivers'])
    expect(ended.status).toBe(2)
    expect(ended.stderr).toMatch(/^Unknown option '--drivers'\n\nBreaks connections/)
  })
})
