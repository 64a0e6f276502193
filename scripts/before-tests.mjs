// Before vitest runs, by whatever command: the servers are there and `dist` is built, for tests that start processes on it.

import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { setup, wantedKinds } from './setup.mjs'

export default function beforeTests() {
  if (process.env.HOLDFAST_READY) return // `npm test` has done both
  setup(wantedKinds())
  const tsc = join(import.meta.dirname, '../node_modules/.bin/tsc')
  // With type errors, too, it emits: half-done work elsewhere shall not keep anyone from running his tests. `npm test` is stricter.
  spawnSync(tsc, ['-p', 'tsconfig.build.json'], { cwd: join(import.meta.dirname, '..'), stdio: 'inherit' })
}
