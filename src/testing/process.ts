import { spawn, type ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { freeze, thaw, tiedToUs } from './offspring.js'

export interface ProcessOptions {
  readonly args?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  /** Another Node binary, or options for this one. */
  readonly node?: readonly string[]
}

export interface Exit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** A Node process on a script file. It talks with `process.send` and hears `process.on('message')`. */
export function startProcess(file: string | URL, options: ProcessOptions = {}): TestProcess {
  const path = typeof file === 'string' ? file : fileURLToPath(file)
  return new TestProcess([path], options)
}

/** The same with an ES module as text: `process.argv[1]` is its first argument, and its imports start from the current folder. */
export function startScript(text: string, options: ProcessOptions = {}): TestProcess {
  return new TestProcess(['--input-type=module', '--eval', text, '--'], options)
}

export class TestProcess implements AsyncDisposable {
  readonly exited: Promise<Exit>
  readonly #child: ChildProcess
  readonly #unread: unknown[] = []
  #wake: () => void = () => {}
  #exit: Exit | undefined
  #output = ''

  /** @internal Call `startProcess` or `startScript`. */
  constructor(script: readonly string[], { args = [], env = {}, node = [process.execPath] }: ProcessOptions) {
    const [program, ...rest] = tiedToUs([...node, ...script, ...args]) as [string, ...string[]]
    const child = spawn(program, rest, { stdio: ['ignore', 'pipe', 'pipe', 'ipc'], env: { ...process.env, ...env } })
    this.#child = child
    child.on('message', (message) => {
      this.#unread.push(message)
      this.#wake()
    })
    for (const stream of [child.stdout, child.stderr])
      stream?.setEncoding('utf8').on('data', (text: string) => (this.#output += text))
    child.on('error', (error) => (this.#output += error.message)) // it could not be started, or not be told something
    this.exited = new Promise((resolve) => {
      child.once('close', (code: number | null, signal: NodeJS.Signals | null) => {
        this.#exit = { code, signal }
        this.#wake()
        resolve(this.#exit)
      })
    })
  }

  get pid(): number {
    if (this.#child.pid === undefined) throw new Error('the process could not be started')
    return this.#child.pid
  }

  /** What it wrote to stdout and stderr so far. */
  get output(): string {
    return this.#output
  }

  send(message: object): void {
    this.#child.send(message)
  }

  /** Its next message. Fails with what it wrote when it ends, or stays silent, instead. One reader at a time. */
  async next<Message = unknown>(withinMs = 10_000): Promise<Message> {
    const deadline = performance.now() + withinMs
    while (this.#unread.length === 0) {
      const left = deadline - performance.now()
      if (this.#exit)
        throw new Error(
          `the process ended (${this.#exit.signal ?? this.#exit.code}) and sent nothing more:\n${this.#output}`,
        )
      if (left <= 0) throw new Error(`no message within ${withinMs} ms:\n${this.#output}`)
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left)
        this.#wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
    return this.#unread.shift() as Message
  }

  freeze(): Promise<void> {
    return freeze(this.pid)
  }

  thaw(): void {
    thaw(this.pid)
  }

  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<Exit> {
    if (!this.#exit) this.#child.kill(signal)
    return await this.exited
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill()
  }
}
