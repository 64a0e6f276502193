import { describe, expect, it } from 'vitest'
import { Replies } from './replies.js'

const packet = (sequence: number, body: number[]): Buffer => Buffer.from([body.length, 0, 0, sequence, ...body])
const ok = packet(1, [0, 0, 0, 2, 0, 0, 0])
const error = (sequence: number): Buffer => packet(sequence, [0xff, 0x28, 0x04, ...Buffer.from('#42000no')])
const query = packet(0, [3, ...Buffer.from('SELECT 1')])

/** A column, then rows. */
function rows(count: number): Buffer {
  const body = Array.from({ length: count }, (_, n) => packet((n + 4) & 0xff, [1, 0x31]))
  const end = packet((count + 4) & 0xff, [0xfe, 0, 0, 2, 0])
  return Buffer.concat([packet(1, [1]), packet(2, [3, 0x64, 0x65, 0x66]), packet(3, [0xfe, 0, 0, 2, 0]), ...body, end])
}

function after(commands: number): Replies {
  const replies = new Replies()
  for (let n = 0; n < commands; n++) replies.wrote(query)
  return replies
}

describe('replies', () => {
  it('are counted, however they are cut into chunks', () => {
    const all = Buffer.concat([ok, rows(0), rows(1), error(1), rows(700), ok])
    for (const size of [1, 2, 3, 5, 7, 64, all.length]) {
      const replies = after(6)
      for (let at = 0; at < all.length; at += size) {
        expect(replies.areAllBegun).toBe(at > all.length - ok.length + 4)
        replies.hear(all.subarray(at, at + size))
      }
      expect(replies.areAllBegun).toBe(true)
    }
  })

  it.each([246, 247, 248, 249, 250, 251, 252, 253, 502, 506, 507, 508])(
    'are told apart after %i rows, where the numbers come round',
    (count) => {
      const replies = after(3)
      replies.hear(Buffer.concat([rows(count), rows(count)]))
      expect(replies.areAllBegun).toBe(false)
      replies.hear(ok)
      expect(replies.areAllBegun).toBe(true)
    },
  )

  it('are not expected for what has none', () => {
    const replies = new Replies()
    replies.wrote(packet(0, [0x19, 1, 0, 0, 0]))
    replies.wrote(packet(0, [0x18, 1, 0, 0, 0, 0, 0]))
    expect(replies.areAllBegun).toBe(true)
    replies.wrote(Buffer.from([0xff, 0xff, 0xff, 0])) // the header of a part, by itself
    replies.wrote(Buffer.alloc(100, 3))
    expect(replies.areAllBegun).toBe(false)
  })

  it('that are refusals are known, until the next', () => {
    const replies = after(3)
    replies.hear(Buffer.concat([ok, error(1)]))
    expect(replies.refusal).toMatchObject({ errno: 1064, sqlState: '42000' })
    replies.hear(ok)
    expect(replies.refusal).toBeUndefined()
    expect(replies.farewell).toBeUndefined()
  })

  it('that ask for a file are known', () => {
    const replies = after(1)
    replies.hear(packet(1, [0xfb, 0x78]))
    expect(replies.infile).toBe(true)
  })

  it.each([[[]], [[ok]], [[rows(3), error(1)]]])(
    'end with an error that answers none (after %#)',
    (before: Buffer[]) => {
      const replies = after(5)
      const all = Buffer.concat([...before, error(0)])
      expect(replies.hear(all)).toBe(all.length - error(0).length)
      expect(replies.farewell).toMatchObject({ errno: 1064 })
    },
  )

  it('that fail in the middle, where the numbers come round, are no farewell', () => {
    const replies = after(1)
    const all = Buffer.concat([rows(252).subarray(0, -9), error(0)])
    expect(replies.hear(all)).toBe(all.length)
    expect(replies.farewell).toBeUndefined()
  })
})
