import type { AccountLimit, Budget, Permit } from '../budget.js'

import { systemClock, type Clock, type Timer } from '../clock.js'

// Taking a session from somebody who works on it costs a dial: so often, and from nobody who has had it for less.
const ASK_BACK_EVERY_MS = 100

/** Pools of this process that use the same account share what it may hold. */
const budgets = new Map<string, LocalBudget>()

export function localBudget(account: string): LocalBudget {
  let budget = budgets.get(account)
  if (budget === undefined) budgets.set(account, (budget = new LocalBudget(systemClock)))
  return budget
}

class LocalPermit implements Permit {
  /** Since when its session is in use; undefined while it is being opened. */
  usedSince: number | undefined = undefined
  readonly #budget: LocalBudget
  readonly #revocation = new AbortController()
  #idle = false

  constructor(budget: LocalBudget) {
    this.#budget = budget
  }

  get revoked(): AbortSignal {
    return this.#revocation.signal
  }
  get idle(): boolean {
    return this.#idle
  }
  set idle(idle: boolean) {
    this.#idle = idle
    this.usedSince ??= this.#budget.now
    // Not now: the pool is in the middle of noting where its session went.
    if (idle && this.#budget.wanted) queueMicrotask(() => this.#budget.askBack())
  }
  askBack(): void {
    this.#revocation.abort()
  }
  [Symbol.dispose](): void {
    this.#budget.returned(this)
  }
}

interface Reservation {
  grant(permit: Permit): void
}

/** Counts the sessions of one account over all pools of this process; free until a session learns a limit. */
export class LocalBudget implements Budget {
  readonly #clock: Clock
  /** Oldest first. */
  readonly #granted = new Set<LocalPermit>()
  readonly #line = new Set<Reservation>()
  #limit = Infinity
  #nextAsking: Timer | undefined = undefined

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get now(): number {
    return this.#clock.now()
  }

  /** Sessions that are held now. */
  get granted(): number {
    return this.#granted.size
  }

  /** Somebody stands in line. */
  get wanted(): boolean {
    return this.#line.size > 0
  }

  learned(limit: AccountLimit): void {
    this.#limit = limit.maxSessions
    this.#serve()
  }

  reserve(signal: AbortSignal): Promise<Permit> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason as Error)
      const withdraw = (): void => {
        this.#line.delete(reservation)
        this.#serve()
        reject(signal.reason as Error)
      }
      const reservation: Reservation = {
        grant: (permit) => {
          signal.removeEventListener('abort', withdraw)
          resolve(permit)
        },
      }
      signal.addEventListener('abort', withdraw, { once: true })
      this.#line.add(reservation)
      this.#serve()
      this.askBack()
    })
  }

  returned(permit: LocalPermit): void {
    if (this.#granted.delete(permit)) this.#serve()
  }

  /** For each who stands in line one permit is wanted back: an idle one at once, else, now and then, the oldest. */
  askBack(): void {
    let missing = this.#line.size
    for (const { revoked } of this.#granted) if (revoked.aborted) missing--
    for (const permit of this.#granted) {
      if (missing <= 0) return
      if (!permit.idle || permit.revoked.aborted) continue
      permit.askBack()
      missing--
    }
  }

  #serve(): void {
    for (const reservation of this.#line) {
      if (this.#granted.size >= this.#limit) break
      this.#line.delete(reservation)
      const permit = new LocalPermit(this)
      this.#granted.add(permit)
      reservation.grant(permit)
    }
    if (this.wanted) this.#nextAsking ??= this.#clock.after(ASK_BACK_EVERY_MS, () => this.#askTheOldest())
    else {
      this.#nextAsking?.cancel()
      this.#nextAsking = undefined
    }
  }

  #askTheOldest(): void {
    this.#nextAsking = undefined
    this.askBack()
    const due = [...this.#granted].filter(
      ({ revoked, usedSince = Infinity }) => !revoked.aborted && this.now - usedSince >= ASK_BACK_EVERY_MS,
    )
    const asked = [...this.#granted].some(({ revoked }) => revoked.aborted)
    if (!asked) due[0]?.askBack()
    this.#serve()
  }
}
