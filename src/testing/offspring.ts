import { existsSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

const SETPRIV = '/usr/bin/setpriv'

/** The command, run so that the kernel kills it when we die in whatever way (where setpriv exists: on every Linux distribution). */
export function tiedToUs(command: readonly string[]): string[] {
  return existsSync(SETPRIV) ? [SETPRIV, '--pdeathsig', 'KILL', '--', ...command] : [...command]
}

/** A zombie is dead: an orphan's may stay for as long as the init process of a container pleases. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false // otherwise it lives, and is not ours to signal
  }
  return stateOf(pid) !== 'Z'
}

/** Stops the process where it stands and resolves when it does. */
export async function freeze(pid: number): Promise<void> {
  process.kill(pid, 'SIGSTOP')
  for (let state = stateOf(pid); state !== undefined && state !== 'T'; state = stateOf(pid)) await sleep(1)
}

export function thaw(pid: number): void {
  process.kill(pid, 'SIGCONT')
}

/** The letter behind the program's name in /proc: that name stands in brackets and may hold brackets and blanks itself. */
function stateOf(pid: number): string | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return text.slice(text.lastIndexOf(')') + 2)[0]
  } catch {
    return undefined // there is no such process
  }
}
