import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { startProcess, type TestProcess } from '../testing/process.js'
import { startServer, type Account, type AccountOptions, type TestServer } from '../testing/server.js'
import { contender, type Address, type Contender, type ContenderOptions } from './contender.js'
import type { DriverName, Side } from './outcome.js'

/** An account with a table `work`: each piece of work leaves a row, or a few, with its token. */
export interface Site {
  readonly server: TestServer
  readonly account: Account
}

export interface Servers {
  /** Nothing happens to it. */
  readonly steady: TestServer
  /** Its wait_timeout is 2 s. */
  readonly hasty: TestServer
  /** It is killed. What was committed is in the file by then: a test's server would be faster and keep less. */
  readonly frail: TestServer
}

export const WAIT_TIMEOUT_S = 2

/** A machine that is busy with other things is late, and no more than that. */
export const LATE_MS = 30_000

/** Where things are broken: private servers, accounts on them, and pools and processes that use those. */
export class Lab {
  readonly driver: DriverName
  readonly servers: Servers
  readonly #say: (text: string) => void

  constructor(driver: DriverName, servers: Servers, say: (text: string) => void) {
    this.driver = driver
    this.servers = servers
    this.#say = say
  }

  /** What is being broken right now. */
  say(text: string): void {
    this.#say(text)
  }

  async site(server: TestServer, options: AccountOptions = {}): Promise<Site> {
    const account = await server.createAccount(options)
    await server.query('CREATE TABLE ??.work (id INT AUTO_INCREMENT PRIMARY KEY, token VARCHAR(40), step INT)', [
      account.database,
    ])
    return { server, account }
  }

  contender(side: Side, address: Address, options: Partial<ContenderOptions> = {}): Contender {
    return contender({ side, driver: this.driver, address, ...options })
  }

  /** One of the programs beside this file, compiled, in a process of its own. */
  process(file: string, task: object, node: readonly string[] = []): TestProcess {
    const child = startProcess(new URL(file, import.meta.url), {
      args: [JSON.stringify(task)],
      node: [process.execPath, '--no-warnings', ...node],
    })
    children.add(child)
    void child.exited.then(() => children.delete(child))
    return child
  }
}

/** A folder for the length of a block, or of the process if that is shorter. */
export class TemporaryFolder implements Disposable {
  // By its name the servers' own tidying up would find it, should the process be killed.
  readonly path: string = mkdtempSync(join(tmpdir(), `holdfast-${process.pid}-`))
  readonly #remove = (): void => rmSync(this.path, { recursive: true, force: true })

  constructor() {
    process.once('exit', this.#remove)
  }

  [Symbol.dispose](): void {
    process.off('exit', this.#remove)
    this.#remove()
  }
}

const children = new Set<TestProcess>()
process.once('exit', () => children.forEach((child) => void child.kill()))

export async function startServers(): Promise<Servers & AsyncDisposable> {
  const [steady, hasty, frail] = await Promise.all([
    startServer('mariadb-10.11'),
    startServer('mariadb-10.11', { flags: [`--wait-timeout=${WAIT_TIMEOUT_S}`] }),
    startServer('mariadb-10.11', { flags: ['--innodb-flush-log-at-trx-commit=2'] }),
  ])
  const all = [steady, hasty, frail]
  return {
    steady,
    hasty,
    frail,
    [Symbol.asyncDispose]: async () => void (await Promise.all(all.map((server) => server[Symbol.asyncDispose]()))),
  }
}

/** How many rows each token has left. */
export async function rowsOf({ server, account }: Site): Promise<Map<string, number>> {
  const rows = await server.query<{ token: string; n: number }>(
    'SELECT token, COUNT(*) AS n FROM ??.work GROUP BY token',
    [account.database],
  )
  return new Map(rows.map(({ token, n }) => [token, n]))
}

/** The threads of the account that run this, when there are so many of them. */
export async function threadsRunning({ server, account }: Site, text: string, count: number): Promise<number[]> {
  let threads: number[] = []
  await until(`${count} connections run ${text}`, async () => {
    const sessions = await server.sessions(account.user)
    threads = sessions.filter(({ info }) => info?.includes(text)).map(({ id }) => id)
    return threads.length === count
  })
  return threads
}

export async function until(what: string, isSo: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + LATE_MS
  while (!(await isSo())) {
    if (performance.now() > deadline) throw new Error(`it is still not so that ${what}`)
    await sleep(5)
  }
}

export function tokens(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `call ${index + 1}`)
}

/** A place where a crowd waits until all have come. */
export function meetingOf(size: number): { readonly complete: Promise<void>; arrive(): void } {
  let missing = size
  let open = (): void => {}
  const complete = new Promise<void>((resolve) => (open = resolve))
  return { complete, arrive: () => void (--missing === 0 && open()) }
}
