import type { AccountLimit, Budget, Permit } from '../budget.js'

// A session that somebody works on is asked for only so often: each time costs a dial.
const ASK_BACK_EVERY_MS = 100

/** Pools of this process that use the same account share what it may hold. */
const budgets = new Map<string, LocalBudget>()

export function localBudget(account: string): LocalBudget {
  let budget = budgets.get(account)
  if (budget === undefined) budgets.set(account, (budget = new LocalBudget()))
  return budget
}

class LocalPermit implements Permit {
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
  readonly #granted = new Set<LocalPermit>()
  readonly #line = new Set<Reservation>()
  #limit = Infinity
  #askedBackAt = -Infinity

  /** Sessions that are held now. */
  get granted(): number {
    return this.#granted.size
  }

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

  #serve(): void {
    for (const reservation of this.#line) {
      if (this.#granted.size >= this.#limit) return
      this.#line.delete(reservation)
      const permit = new LocalPermit(this)
      this.#granted.add(permit)
      reservation.grant(permit)
    }
  }

  /** For each who stands in line one permit is wanted back: an idle one at once, else the oldest now and then. */
  askBack(): void {
    let asked = 0
    for (const permit of this.#granted) if (permit.revoked.aborted) asked++
    for (const permit of this.#granted) {
      if (asked >= this.#line.size) return
      if (!permit.idle || permit.revoked.aborted) continue
      permit.askBack()
      asked++
    }
    const now = performance.now()
    if (asked >= this.#line.size || now - this.#askedBackAt < ASK_BACK_EVERY_MS) return
    for (const permit of this.#granted) {
      if (permit.revoked.aborted) continue
      this.#askedBackAt = now
      return permit.askBack()
    }
  }
}
