// One run of vitest, watched by people and counted by programs.

import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)))

/** The caller has done the set-up and the build. @param {{ args?: string[], node?: string, env?: NodeJS.ProcessEnv }} options */
export function runVitest({ args = [], node = process.execPath, env = process.env } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'vitest-'))
  const file = join(folder, 'results.json')
  const vitest = join(ROOT, 'node_modules/vitest/vitest.mjs')
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${file}`]
  try {
    const { status } = spawnSync(node, [vitest, 'run', ...reporters, ...args], {
      cwd: ROOT,
      stdio: 'inherit',
      env: { ...env, HOLDFAST_READY: '1' },
    })
    return { ok: status === 0, ...count(existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : undefined, status) }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** A file that could not even be loaded, or an error outside of any test, is a failure too. */
function count(results, status) {
  const passed = results?.numPassedTests ?? 0
  const skipped = (results?.numPendingTests ?? 0) + (results?.numTodoTests ?? 0)
  const unloadable = (results?.testResults ?? []).filter(
    (file) => file.status === 'failed' && file.assertionResults.length === 0,
  )
  const failed = (results?.numFailedTests ?? 0) + unloadable.length
  return { passed, skipped, failed: status === 0 ? failed : Math.max(failed, 1) }
}
