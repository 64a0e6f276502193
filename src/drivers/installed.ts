import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { cwd } from 'node:process'
import { pathToFileURL } from 'node:url'
import { HoldfastError } from '../errors.js'
import { isBefore } from '../version.js'

export type DriverName = 'mysql2' | 'mariadb'

export interface InstalledDriver {
  readonly name: DriverName
  readonly version: string
  /** The module that the application gets too when it imports the driver. */
  load<Module>(): Promise<Module>
}

/**
 * The oldest releases that pass (each tried with MariaDB 10.11 and MySQL 9.7). Before mariadb 3.3.0 its errors show bound values,
 * for which it had no option, and its callbacks give no stream. What mysql2 lacks before 3.22.0 (COM_RESET_CONNECTION) has a
 * substitute; nothing older than 3.0.0 was looked at closely. mariadb 3.3.0 trips over the handshake of MariaDB 11.8, 3.3.1 does not.
 * Both pipeline from here on: test/contract/releases.test.ts.
 */
const MINIMUM: Readonly<Record<DriverName, string>> = { mysql2: '3.0.0', mariadb: '3.3.0' }

const ENTRY: Readonly<Record<DriverName, string>> = { mysql2: '.', mariadb: './callback' }

/**
 * The driver of that name, or the one that is installed: mysql2 when both are. Looks where this package stands, then in
 * the working directory. Throws OPTION_INVALID, with what to type, when there is none or when it is too old.
 */
export function installedDriver(name?: DriverName, places: readonly string[] = standardPlaces()): InstalledDriver {
  for (const each of name ? [name] : (['mysql2', 'mariadb'] as const)) {
    const folder = folderOf(each, places)
    if (folder) return driverIn(folder, each)
  }
  if (name) throw new HoldfastError('OPTION_INVALID', `the driver ${name} is not installed: npm install ${name}`)
  throw new HoldfastError('OPTION_INVALID', 'no driver is installed: npm install mysql2 (or: npm install mariadb)')
}

function driverIn(folder: string, name: DriverName): InstalledDriver {
  const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as Manifest
  const { version } = manifest
  if (isBefore(version, MINIMUM[name])) {
    throw new HoldfastError(
      'OPTION_INVALID',
      `${name} ${version} is too old: npm install ${name}@latest (Holdfast needs ${MINIMUM[name]} or later)`,
    )
  }
  const entry = pathToFileURL(join(folder, entryOf(manifest, ENTRY[name]))).href
  return { name, version, load: () => load(entry) }
}

async function load<Module>(entry: string): Promise<Module> {
  const module = (await import(entry)) as Module & { readonly default?: Module }
  return 'createConnection' in (module as object) ? module : (module.default ?? module)
}

interface Manifest {
  readonly name: string
  readonly version: string
  readonly main?: string
  readonly exports?: unknown
}

function standardPlaces(): string[] {
  return [import.meta.url, pathToFileURL(join(cwd(), 'package.json')).href]
}

/** mariadb does not export its package.json, so the folder is found upwards from its main file. */
function folderOf(name: DriverName, places: readonly string[]): string | undefined {
  for (const from of places) {
    try {
      let folder = dirname(createRequire(from).resolve(name))
      while (!isPackage(folder, name) && dirname(folder) !== folder) folder = dirname(folder)
      if (isPackage(folder, name)) return folder
    } catch {
      // not to be had from there
    }
  }
  return undefined
}

function isPackage(folder: string, name: string): boolean {
  const file = join(folder, 'package.json')
  return existsSync(file) && (JSON.parse(readFileSync(file, 'utf8')) as Manifest).name === name
}

/** What `import` would take: the ES module where there is one, so that its classes are the application's own. */
function entryOf({ exports, main }: Manifest, subpath: string): string {
  let target: unknown = exports
  if (typeof target === 'object' && target !== null && subpath in target)
    target = (target as Record<string, unknown>)[subpath]
  else if (subpath !== '.') return `${subpath}.js`
  while (typeof target === 'object' && target !== null) {
    const conditions = target as Record<string, unknown>
    target = conditions['node'] ?? conditions['import'] ?? conditions['default'] ?? conditions['require']
  }
  return typeof target === 'string' ? target : (main ?? 'index.js')
}
