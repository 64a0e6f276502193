import { describe, expect, test } from 'vitest'
import { errorOf, greetingOf, isPreparation } from './packets.js'

function packet(sequence: number, payload: Buffer): Buffer {
  return Buffer.concat([Buffer.of(payload.length & 0xff, payload.length >> 8, payload.length >> 16, sequence), payload])
}

function greeting(version: string, capabilities: number): Buffer {
  const rest = Buffer.alloc(40)
  rest.writeUInt16LE(capabilities, 13)
  return packet(0, Buffer.concat([Buffer.of(10), Buffer.from(`${version}\0`), rest]))
}

describe('the greeting', () => {
  test.each([
    ['10.11.19-MariaDB-0+deb12u1', { flavour: 'mariadb', version: '10.11.19-MariaDB-0+deb12u1' }],
    ['5.5.5-10.6.18-MariaDB', { flavour: 'mariadb', version: '10.6.18-MariaDB' }],
    ['9.7.4-2', { flavour: 'mysql', version: '9.7.4-2' }],
    ['5.5.5', { flavour: 'mysql', version: '5.5.5' }],
    ['8.0.30-ProxySQL', { flavour: 'mysql', version: '8.0.30-ProxySQL' }],
  ])('of %s names the server', (version, server) => {
    expect(greetingOf(greeting(version, 0))).toEqual({ server, offersTls: false })
  })

  test('says whether the server speaks TLS', () => {
    expect(greetingOf(greeting('9.7.4', 0xffff))?.offersTls).toBe(true)
    expect(greetingOf(greeting('9.7.4', 0xf7ff))?.offersTls).toBe(false)
  })

  test('is waited for until it is whole, and is not taken from anything else', () => {
    const whole = greeting('9.7.4', 0)
    for (let length = 0; length < whole.length - 25; length++)
      expect(greetingOf(whole.subarray(0, length))).toBeUndefined()
    expect(
      greetingOf(packet(0, Buffer.from('\xff\x10\x04Too many connections\0and more and more', 'latin1'))),
    ).toBeUndefined()
    expect(greetingOf(Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'))).toBeUndefined()
  })
})

test('only one whole ERR packet is an error', () => {
  const farewell = packet(0, Buffer.from('\xff\xbf\x0f#HY000The client was disconnected', 'latin1'))
  expect(errorOf(farewell)).toMatchObject({ errno: 4031, sqlState: 'HY000', message: 'The client was disconnected' })
  expect(errorOf(farewell.subarray(0, 20))).toBeUndefined()
  expect(errorOf(Buffer.concat([farewell, farewell]))).toBeUndefined()
  expect(errorOf(packet(1, Buffer.from('\xff in the middle of a row', 'latin1')))).toBeUndefined()
  expect(errorOf(packet(1, Buffer.from('\x00\x00\x00\x02\x00\x00\x00')))).toBeUndefined()
  expect(errorOf(Buffer.of(0, 0, 0, 0, 0xff))).toBeUndefined()
})

test('only a whole PREPARE, CLOSE or LONG DATA counts as preparation', () => {
  const prepare = packet(0, Buffer.from('\x16SELECT 1'))
  expect(isPreparation(prepare)).toBe(true)
  expect(isPreparation(packet(0, Buffer.from('\x19\x01\x00\x00\x00')))).toBe(true)
  expect(isPreparation(packet(0, Buffer.from('\x03SELECT 1')))).toBe(false)
  expect(isPreparation(packet(0, Buffer.from('\x17\x01')))).toBe(false)
  expect(isPreparation(prepare.subarray(0, 8))).toBe(false)
  expect(isPreparation(Buffer.concat([prepare, packet(0, Buffer.from('\x03DO 1'))]))).toBe(false)
  expect(isPreparation(packet(1, Buffer.from('\x16 in the middle of a large packet')))).toBe(false)
})
