import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import * as holdfast from '../src/index.js'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

function node(...args: string[]): string {
  return execFileSync(process.execPath, ['--no-warnings', ...args], { cwd: ROOT, encoding: 'utf8' }).trim()
}

describe('the package', () => {
  it('exports what the documentation names, and nothing else', () => {
    expect(Object.keys(holdfast).sort()).toEqual(['Fault', 'HoldfastError', 'createPool'])
  })

  it('can be imported and required under its own name', () => {
    const script = "import { createPool } from 'holdfast'; console.log(typeof createPool)"
    expect(node('--input-type=module', '-e', script)).toBe('function')
    expect(node('-p', "typeof require('holdfast').createPool")).toBe('function')
  })

  it('has no run-time dependency but the driver that the user chose', () => {
    const manifest = JSON.parse(readFileSync(`${ROOT}package.json`, 'utf8')) as Record<string, unknown>
    expect(manifest['dependencies']).toBeUndefined()
    expect(manifest['peerDependenciesMeta']).toEqual({ mariadb: { optional: true }, mysql2: { optional: true } })
  })
})
