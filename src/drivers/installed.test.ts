import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { installedDriver } from './installed.js'

let home: string

beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'holdfast-drivers-'))
})
afterEach(() => {
  rmSync(home, { recursive: true })
})

/** An application's folder with these packages. */
function places(packages: Record<string, { manifest: object; files?: Record<string, string> }>): string[] {
  for (const [name, { manifest, files = {} }] of Object.entries(packages)) {
    const folder = join(home, 'node_modules', name)
    mkdirSync(folder, { recursive: true })
    writeFileSync(join(folder, 'package.json'), JSON.stringify({ name, main: 'index.cjs', ...manifest }))
    for (const [file, text] of Object.entries({ 'index.cjs': 'exports.createConnection = () => "cjs"', ...files })) {
      writeFileSync(join(folder, file), text)
    }
  }
  return [pathToFileURL(join(home, 'app.js')).href]
}

const refusal = (code: string, message: RegExp): object => ({ code, message: expect.stringMatching(message) as string })

test('a driver that is missing is named, with what to type', () => {
  const none = places({})
  expect(() => installedDriver('mariadb', none)).toThrow(
    expect.objectContaining(refusal('OPTION_INVALID', /mariadb is not installed: npm install mariadb/)),
  )
  expect(() => installedDriver(undefined, none)).toThrow(
    expect.objectContaining(refusal('OPTION_INVALID', /npm install mysql2/)),
  )
})

test('a driver that is too old is refused, with what to type', () => {
  const old = places({ mysql2: { manifest: { version: '2.3.3' } }, mariadb: { manifest: { version: '3.2.10' } } })
  expect(() => installedDriver('mysql2', old)).toThrow(
    expect.objectContaining(refusal('OPTION_INVALID', /mysql2 2\.3\.3 is too old: npm install mysql2@latest/)),
  )
  expect(() => installedDriver('mariadb', old)).toThrow(
    expect.objectContaining(refusal('OPTION_INVALID', /3\.3\.0 or later/)),
  )
})

test('mysql2 comes first', () => {
  const both = places({ mysql2: { manifest: { version: '3.10.0' } }, mariadb: { manifest: { version: '3.3.0' } } })
  expect(installedDriver(undefined, both)).toMatchObject({ name: 'mysql2', version: '3.10.0' })
})

test('mariadb will do when it is alone', () => {
  const alone = places({ mariadb: { manifest: { version: '3.3.0' } } })
  expect(installedDriver(undefined, alone)).toMatchObject({ name: 'mariadb', version: '3.3.0' })
})

test('what is loaded is what the application imports', async () => {
  const exports = {
    './callback': { import: { types: './x.d.ts', default: './callback.mjs' }, require: { default: './callback.cjs' } },
    '.': './index.cjs',
  }
  const from = places({
    mysql2: { manifest: { version: '3.24.5' } },
    mariadb: {
      manifest: { version: '3.5.4', exports },
      files: { 'callback.mjs': 'export const createConnection = () => "esm"' },
    },
  })
  const [mysql2, mariadb] = [installedDriver('mysql2', from), installedDriver('mariadb', from)]
  expect((await mysql2.load<{ createConnection(): string }>()).createConnection()).toBe('cjs')
  expect((await mariadb.load<{ createConnection(): string }>()).createConnection()).toBe('esm')
})
