import { describe, expect, test } from 'vitest'
import type { Request } from './main.js'

// Plain JavaScript: it runs before anything is installed or built.
const { readArguments } = (await import(new URL('../../scripts/start.mjs', import.meta.url).href)) as {
  readonly readArguments: (args: string[]) => Request | 'help'
}

describe('the command line of `npm start`', () => {
  test.each<[string[], Request | 'help']>([
    [[], { drivers: ['mysql2'], json: false }],
    [['--driver', 'mariadb', '--json'], { drivers: ['mariadb'], json: true }],
    [['--driver=mariadb'], { drivers: ['mariadb'], json: false }],
    [['--all'], { drivers: ['mysql2', 'mariadb'], json: false }],
    [['mysql://app:s%40crets@db/shop'], { drivers: ['mysql2'], json: false, url: 'mysql://app:s%40crets@db/shop' }],
    [['mariadb://db', '--all'], { drivers: ['mysql2', 'mariadb'], json: false, url: 'mariadb://db' }],
    [['--help', '--json'], 'help'],
    [['-h'], 'help'],
  ])('%j', (args, request) => expect(readArguments(args)).toEqual(request))

  test.each<[string[], string]>([
    [['--jsno'], "Unknown option '--jsno'"],
    [['--driver'], 'argument missing'],
    [['--driver', 'pg'], '--driver must be mysql2 or mariadb'],
    [['--driver', 'mysql2', '--all'], 'exclude each other'],
    [['mysql://a', 'mysql://b'], 'one URL at a time'],
    [['app:secret@db'], 'a URL must look like mysql://user:password@host:3306/database'],
  ])('%j is refused: %s', (args, sentence) => expect(() => readArguments(args)).toThrow(sentence))

  test.each([
    [['app:secret@db']],
    [['--url=mysql://app:secret@db']],
    [['mysql://app:secret@a', 'mysql://app:secret@b']],
  ])('%j is refused without repeating what may be a password', (args) => {
    expect(() => readArguments(args)).toThrow()
    expect(() => readArguments(args)).not.toThrow('secret')
  })
})
