import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

const SRC = fileURLToPath(new URL('../src', import.meta.url))

/** From the inside out: a file imports its own ring and the rings before it. */
const RINGS: readonly (readonly string[])[] = [
  ['clock.ts', 'driver.ts', 'budget.ts', 'stats.ts', 'version.ts'], // words
  ['errors.ts', 'abort.ts', 'events.ts', 'faults/', 'sql/'], // failure
  ['pool/'], // sessions, and who gets one
  ['run/', 'results/'], // work on a lease
  ['drivers/', 'testing/'], // edges, strangers to each other
  ['create-pool.ts', 'index.ts'], // the public face
  ['demo/'], // programs
]

/** Folders of one ring that must not know each other; and the two drivers. */
const STRANGERS = [
  ['drivers/', 'testing/'],
  ['drivers/mysql2', 'drivers/mariadb'],
]

const files = readdirSync(SRC, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts') && !file.endsWith('.test.ts'))
  .sort()

function ringOf(file: string): number {
  return RINGS.findIndex((ring) => ring.some((name) => (name.endsWith('/') ? file.startsWith(name) : file === name)))
}

function importsOf(file: string): string[] {
  const text = readFileSync(join(SRC, file), 'utf8')
  return [...text.matchAll(/(?:from|import\()\s*'(\.[^']+)'/g)].map(([, path]) =>
    relative(SRC, join(SRC, dirname(file), path as string)).replace(/\.js$/, '.ts'),
  )
}

describe('the house', () => {
  it('has a ring for every file', () => {
    expect(files.filter((file) => ringOf(file) === -1)).toEqual([])
  })

  it('imports inwards only', () => {
    const outwards = files.flatMap((file) =>
      importsOf(file)
        .filter((imported) => ringOf(imported) > ringOf(file))
        .map((imported) => `${file} imports ${imported}`),
    )
    expect(outwards).toEqual([])
  })

  it('keeps strangers apart', () => {
    const met = files.flatMap((file) =>
      importsOf(file)
        .filter((imported) =>
          STRANGERS.some(
            ([one, other]) =>
              (file.startsWith(one!) && imported.startsWith(other!)) ||
              (file.startsWith(other!) && imported.startsWith(one!)),
          ),
        )
        .map((imported) => `${file} imports ${imported}`),
    )
    expect(met).toEqual([])
  })

  it('asks for timers in one file only', () => {
    const timed = files.filter(
      (file) =>
        !file.startsWith('testing/') &&
        !file.startsWith('demo/') &&
        /\b(setTimeout|setInterval)\(/.test(readFileSync(join(SRC, file), 'utf8')),
    )
    expect(timed).toEqual(['clock.ts'])
  })

  it('keeps its files short', () => {
    const long = files.filter((file) => readFileSync(join(SRC, file), 'utf8').split('\n').length > 500)
    expect(long).toEqual([])
  })
})
