import { HoldfastError } from '../errors.js'
import type { Fault } from '../faults/fault.js'
import { siteOf } from './lease-note.js'
import type { LastRefusal, Lender } from './lender.js'

/** Every sentence about why no session was had is built here. */

export function poolClosed(name: string): HoldfastError {
  return new HoldfastError('POOL_CLOSED', `${name}: the pool was drained; it lends no more`)
}

export function queueFull(lender: Lender): HoldfastError {
  const { queueLimit, name } = lender.options
  return new HoldfastError(
    'POOL_QUEUE_FULL',
    `${name}: ${queueLimit} wait already (queueLimit); ${counts(lender)}${oldestLease(lender)}`,
  )
}

export function acquireSentence(lender: Lender, timeoutMs: number): string {
  const within = `no connection became free within ${Math.round(timeoutMs)} ms`
  return `${lender.options.name}: ${within} (${counts(lender)})${oldestLease(lender)}${lastDial(lender)}`
}

export function acquireTimeout(sentence: string, refusal: LastRefusal | undefined): HoldfastError {
  return new HoldfastError(
    'POOL_ACQUIRE_TIMEOUT',
    sentence,
    refusal === undefined ? {} : { cause: refusal.fault.error },
  )
}

export function connectFailed(lender: Lender): HoldfastError {
  const fault = lender.lastRefusal?.fault
  return new HoldfastError(
    'CONNECT_FAILED',
    `${lender.options.name}: no connection can be opened: ${fault ? reason(fault) : 'the server refused'}${remedy(fault)}`,
    fault === undefined ? {} : { cause: fault.error },
  )
}

function counts(lender: Lender): string {
  const stats = lender.stats()
  return [
    `max ${stats.max}`,
    `ceiling ${stats.ceiling}${learnedFrom(lender)}`,
    ...(['leased', 'lane', 'idle', 'checking', 'opening', 'closing', 'ghost', 'waiting'] as const).map(
      (place) => `${place} ${stats[place]}`,
    ),
  ].join(', ')
}

function learnedFrom(lender: Lender): string {
  const { ceiling, max } = lender.stats()
  if (ceiling >= max) return ''
  const { maxUserConnections, maxConnections } = lender.limits ?? {}
  if (ceiling === maxUserConnections) return ' learned from max_user_connections'
  if (ceiling === maxConnections) return ' learned from max_connections'
  return " learned from the server's refusals"
}

function oldestLease(lender: Lender): string {
  let oldest: { takenAt: number; site: string } | undefined
  for (const { lease } of lender.slots) {
    if (lease && (oldest === undefined || lease.takenAt < oldest.takenAt)) {
      oldest = { takenAt: lease.takenAt, site: siteOf(lease) }
    }
  }
  return oldest ? `; the oldest lease was taken at ${oldest.site}, ${ago(lender.clock.now() - oldest.takenAt)}` : ''
}

function lastDial(lender: Lender): string {
  const refusal = lender.lastRefusal
  return refusal ? `; the last dial failed ${ago(lender.clock.now() - refusal.at)}: ${reason(refusal.fault)}` : ''
}

/** The server's own words. Its refusals name the account, never the password. */
function reason(fault: Fault): string {
  const { errno } = fault.error as { errno?: unknown }
  const number = typeof errno === 'number' && errno > 0 && !fault.message.includes(String(errno)) ? ` (${errno})` : ''
  return `${fault.message}${number}`
}

function remedy(fault: Fault | undefined): string {
  switch (fault?.kind) {
    case 'hourly-limit':
      return '; dialling again would only use up more of the hourly limit, so it is left alone for five minutes'
    case 'denied':
      return '; check user, password, database and host, and what the account may do'
    case 'init':
      return '; check the option sessionInit'
    case 'tls':
      return "; check the option 'ssl' and the server's certificate"
    default:
      return ''
  }
}

function ago(ms: number): string {
  return ms < 1_000 ? `${Math.round(ms)} ms ago` : `${Math.round(ms / 1_000)} s ago`
}
