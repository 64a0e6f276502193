import { performance } from 'node:perf_hooks'
import { contest, type Contender } from '../contest.js'
import { Ledger, type Order } from '../../src/pool/ledger.js'
import type { Slot } from '../../src/pool/slot.js'
import type { Waiter } from '../../src/pool/waiter.js'
import { MAX, type Setting } from '../pools.js'
import type { Table } from '../table.js'

const TOLD = { accountLimit: Infinity, serverLimit: Infinity, accountHeld: 0, waitTimeoutMs: Infinity }

/** The book of the pool alone: no promise, no socket. */
export async function ledger({ quick }: Setting): Promise<Table[]> {
  const count = quick ? 200_000 : 1_000_000
  const contender = (name: string, work: (book: Book) => void): Contender => ({
    name,
    async round() {
      const book = new Book()
      const started = performance.now()
      for (let i = 0; i < count; i++) work(book)
      return { ns: ((performance.now() - started) * 1e6) / count }
    },
  })
  const rows = await contest(
    [
      contender('lend, return', (book) => book.lendAndReturn()),
      contender('ask, return to the waiter', (book) => book.askAndHandOver()),
      contender('ask behind 1000, withdraw', (book) => book.askAndWithdraw()),
    ],
    quick ? 5 : 9,
  )
  return [{ title: 'The ledger alone', columns: [{ key: 'ns', head: 'ns', digits: 0 }], rows, notes: [] }]
}

class Book {
  readonly #ledger = new Ledger({
    max: MAX,
    minIdle: 0,
    idleTimeoutMs: Infinity,
    maxLifetimeMs: Infinity,
    trustMs: Infinity,
    pingAfterMs: Infinity,
    random: () => 0,
  })
  #lent: Slot

  constructor() {
    const slots = [this.#open(), ...Array.from({ length: MAX - 1 }, () => this.#open())]
    this.#lent = slots[0] as Slot
    for (const slot of slots) this.#ledger.returned(slot, 'clean', 0)
  }

  lendAndReturn(): void {
    const slot = this.#ledger.lend(0) as Slot
    this.#ledger.returned(slot, 'clean', 0)
  }

  /** The line is never empty but for a moment, as in a pool that has too much to do. */
  askAndHandOver(): void {
    this.#exhaust()
    this.#ledger.asked(waiter(), 0)
    const [order] = this.#ledger.returned(this.#lent, 'clean', 0)
    this.#lent = slotOf(order)
  }

  askAndWithdraw(): void {
    this.#exhaust()
    while (this.#ledger.waiting < 1000) this.#ledger.asked(waiter(), 0)
    const one = waiter()
    this.#ledger.asked(one, 0)
    this.#ledger.withdrawn(one)
  }

  #exhaust(): void {
    for (let slot = this.#ledger.lend(0); slot; slot = this.#ledger.lend(0)) this.#lent = slot
  }

  #open(): Slot {
    const [order] = this.#ledger.asked(waiter(), 0)
    return slotOf(this.#ledger.opened(slotOf(order), TOLD, 0)[0])
  }
}

function slotOf(order: Order | undefined): Slot {
  if (order?.do !== 'open' && order?.do !== 'lend') throw new Error(`open or lend was expected, not ${order?.do}`)
  return order.slot
}

function waiter(): Waiter {
  return {
    deadline: Infinity,
    signal: undefined,
    isErrand: false,
    forLane: false,
    serve() {},
    fail() {},
    before: undefined,
    behind: undefined,
    line: undefined,
  }
}
