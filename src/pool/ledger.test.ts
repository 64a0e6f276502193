import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Refusal } from './dial-gate.js'
import { Ledger, type Check, type Condition, type Order, type Told } from './ledger.js'
import { PLACES, type Slot } from './slot.js'
import type { Line, Waiter } from './waiter.js'

class Caller implements Waiter {
  before: Waiter | undefined = undefined
  behind: Waiter | undefined = undefined
  line: Line<Waiter> | undefined = undefined
  outcome: 'waiting' | 'served' | 'refused' | 'withdrawn' = 'waiting'
  readonly signal: AbortSignal | undefined = undefined
  readonly isErrand = false
  readonly forLane: boolean
  readonly id: number
  readonly deadline: number
  constructor(id: number, deadline: number, forLane: boolean) {
    this.forLane = forLane
    this.id = id
    this.deadline = deadline
  }
  serve(): void {}
  fail(): void {}
}

const OPTIONS = {
  max: 4,
  minIdle: 0,
  idleTimeoutMs: 60_000,
  maxLifetimeMs: 1_800_000,
  trustMs: 500,
  pingAfterMs: 30_000,
  random: () => 0.5,
}
const TOLD: Told = { accountLimit: Infinity, serverLimit: 151, accountHeld: 0, waitTimeoutMs: 300_000 }

/** A ledger, and a world that carries its orders out when it is told to. */
class World {
  readonly ledger: Ledger
  now = 0
  told = TOLD
  readonly opening: Slot[] = []
  readonly checking: { slot: Slot; how: Check }[] = []
  readonly closing: Slot[] = []
  readonly leased: Slot[] = []
  readonly ghosts: Slot[] = []
  readonly callers: Caller[] = []
  readonly served: Caller[] = []
  #nextId = 1
  #before = 0
  #known = TOLD

  constructor(options: Partial<typeof OPTIONS> = {}) {
    this.ledger = new Ledger({ ...OPTIONS, ...options })
  }

  take(orders: Order[]): Order[] {
    for (const order of orders) {
      if (order.do === 'open') this.opening.push(order.slot)
      else if (order.do === 'check') this.checking.push(order)
      else if (order.do === 'close') this.closing.push(order.slot)
      else if (order.do === 'lend') {
        const caller = order.waiter as Caller
        expect(caller.outcome, 'only one who waits is served').toBe('waiting')
        expect(caller.deadline, 'nobody is served past the deadline').toBeGreaterThan(this.now)
        caller.outcome = 'served'
        this.served.push(caller)
        this.leased.push(order.slot)
      } else for (const waiter of order.waiters as Caller[]) waiter.outcome = 'refused'
    }
    this.audit()
    return orders
  }

  ask(withinMs = 10_000, forLane = false): Caller {
    const caller = new Caller(this.#nextId++, this.now + withinMs, forLane)
    this.callers.push(caller)
    const slot = this.ledger.lend(this.now, forLane ? 'lane' : 'leased')
    if (slot) slot.readOnly = forLane
    if (slot) {
      caller.outcome = 'served'
      this.served.push(caller)
      this.leased.push(slot)
      this.audit()
    } else this.take(this.ledger.asked(caller, this.now))
    return caller
  }

  open(): void {
    const slot = this.opening.shift()
    if (slot === undefined) return
    if (this.told !== this.#known) this.#before = this.ledger.held
    this.#known = this.told
    this.take(this.ledger.opened(slot, this.told, this.now))
  }
  refuse(refusal: Refusal): void {
    const slot = this.opening.shift()
    if (slot) this.take(this.ledger.refused(slot, refusal, this.now))
  }
  give(condition: Condition = 'clean', at = 0, heard = true): void {
    const [slot] = this.leased.splice(at % Math.max(1, this.leased.length), 1)
    if (slot && heard) slot.heardAt = this.now
    if (slot) this.take(this.ledger.returned(slot, condition, this.now))
  }
  check(outcome: 'heard' | 'fit' | 'dead'): void {
    const check = this.checking.shift()
    if (check) this.take(this.ledger.checked(check.slot, outcome, check.how, this.now))
  }
  close(): void {
    const slot = this.closing.shift()
    if (slot) this.take(this.ledger.closed(slot, this.now))
  }
  ghost(): void {
    const slot = this.leased.shift()
    if (slot === undefined) return
    this.ledger.ghosted(slot, this.now)
    this.ghosts.push(slot)
    this.audit()
  }
  lay(): void {
    const slot = this.ghosts.shift()
    if (slot) this.take(this.ledger.laid(slot, this.now))
  }

  audit(): void {
    const { ledger } = this
    const counted = PLACES.reduce((sum, place) => sum + ledger.count(place), 0)
    expect(counted, 'the places add up').toBe(ledger.held)
    this.#before = Math.min(this.#before, ledger.held)
    // A limit that was lowered takes back nothing, but nothing is opened above it.
    expect(ledger.held, 'never more slots than the ceiling').toBeLessThanOrEqual(Math.max(ledger.ceiling, this.#before))
    expect(ledger.count('leased') + ledger.count('lane')).toBe(this.leased.length)
    const lanes = this.served.filter(({ forLane }) => forLane).length
    if (lanes === 0) expect(ledger.count('lane')).toBe(0)
    if (ledger.claims <= 0 && ledger.waiting > 0) expect(this.checking.length).toBeGreaterThan(0)
    expect(ledger.count('opening')).toBe(this.opening.length)
    expect(ledger.count('checking')).toBe(this.checking.length)
    expect(ledger.count('closing')).toBe(this.closing.length)
    expect(ledger.count('ghost')).toBe(this.ghosts.length)
    expect(ledger.waiting).toBe(this.callers.filter((caller) => caller.outcome === 'waiting').length)
    if (ledger.waiting > 0 && !ledger.isShut) {
      const supply = this.opening.length + this.checking.length
      const idleUnused = ledger.count('idle') > 0 && supply < ledger.waiting
      expect(idleUnused, 'nobody waits while a session is idle').toBe(false)
    }
  }
}

describe('the ledger', () => {
  it('opens one session first, to learn the limits, and then as many as are waited for', () => {
    const world = new World()
    for (let i = 0; i < 3; i++) world.ask()
    expect(world.opening).toHaveLength(1)
    world.open()
    expect(world.served).toHaveLength(1)
    expect(world.opening).toHaveLength(2)
  })

  it('never dials beyond what the account may hold', () => {
    const world = new World({ max: 10 })
    world.told = { ...TOLD, accountLimit: 3, accountHeld: 1 }
    for (let i = 0; i < 50; i++) world.ask()
    world.open()
    expect(world.opening).toHaveLength(2)
    expect(world.ledger.ceiling).toBe(3)
  })

  it('lends the newest idle session first', () => {
    const world = new World()
    world.ask()
    world.ask()
    world.open()
    world.open()
    const [first, second] = world.leased as [Slot, Slot]
    world.give()
    world.give()
    world.ask()
    expect(world.leased).toEqual([second])
    world.ask()
    expect(world.leased).toEqual([second, first])
  })

  it('looks at a session that was quiet for a while, and pings one that was quiet for long', () => {
    const world = new World()
    world.ask()
    world.open()
    world.give()
    world.now += 501
    world.ask()
    expect(world.checking.map(({ how }) => how)).toEqual(['look'])
    world.check('fit')
    world.give()
    world.now += 30_001
    world.ask()
    expect(world.checking.map(({ how }) => how)).toEqual(['ping'])
  })

  it('looks at a session that comes home from a long lease before the next in line gets it', () => {
    const world = new World({ max: 1 })
    world.ask()
    world.open()
    const next = world.ask(20_000)
    world.now += 5_000
    world.give('clean', 0, false)
    expect(next.outcome).toBe('waiting')
    expect(world.checking.map(({ how }) => how)).toEqual(['look'])
    world.check('fit')
    expect(next.outcome).toBe('served')
  })

  it('pings older sessions once one turned out dead', () => {
    const world = new World()
    world.ask()
    world.ask()
    world.open()
    world.open()
    world.give()
    world.now += 1
    world.give('lost')
    world.close()
    world.ask()
    expect(world.checking.map(({ how }) => how)).toEqual(['ping'])
  })

  it('opens another session beside a check that takes long', () => {
    const world = new World()
    world.ask()
    world.open()
    world.give()
    world.now += 31_000
    world.ask()
    expect(world.opening).toHaveLength(0)
    world.take(world.ledger.stalled(world.checking[0]!.slot, world.now))
    expect(world.opening).toHaveLength(1)
    world.open()
    expect(world.served).toHaveLength(2)
    world.check('dead')
    expect(world.closing).toHaveLength(1)
  })

  it('takes a limit as back-pressure: one probe at a time, later and later', () => {
    const world = new World()
    world.ask()
    world.open()
    world.ask()
    world.refuse('limit')
    expect(world.ledger.ceiling).toBe(1)
    expect(world.opening).toHaveLength(0)
    const pauses: number[] = []
    for (let i = 0; i < 4; i++) {
      const at = world.ledger.nextDialAt!
      pauses.push(at - world.now)
      world.now = at
      world.take(world.ledger.swept(world.now))
      expect(world.opening).toHaveLength(1)
      world.refuse('limit')
    }
    expect(pauses).toEqual([...pauses].sort((a, b) => a - b))
    expect(pauses[3]).toBeGreaterThan(pauses[0]! * 4)
  })

  it('lets the ceiling rise again when a probe succeeds', () => {
    const world = new World()
    world.ask()
    world.open()
    world.ask()
    world.ask()
    world.refuse('limit')
    world.refuse('limit')
    world.now = world.ledger.nextDialAt!
    world.take(world.ledger.swept(world.now))
    world.open()
    expect(world.ledger.ceiling).toBeGreaterThanOrEqual(2)
    expect(world.opening).toHaveLength(1)
  })

  it('does not dial against an hourly limit, and keeps what it has', () => {
    const world = new World({ maxLifetimeMs: 1_000 })
    world.ask()
    world.open()
    world.ask()
    world.refuse('hourly')
    world.now += 5_000
    world.take(world.ledger.swept(world.now))
    expect(world.opening).toHaveLength(0)
    world.give()
    expect(world.served).toHaveLength(2)
    world.give()
    expect(world.closing).toHaveLength(0)
  })

  it('refuses at once, on an hourly limit, whoever nobody can serve', () => {
    const world = new World()
    world.ask()
    world.refuse('hourly')
    world.now += 100
    expect(world.ask().outcome).toBe('refused')
    expect(world.opening).toHaveLength(0)
  })

  it('refuses all when the server denies, unless somebody will come home', () => {
    const world = new World()
    world.ask()
    world.ask()
    world.refuse('denied')
    expect(world.callers.map(({ outcome }) => outcome)).toEqual(['refused', 'refused'])
    const other = new World()
    other.ask()
    other.open()
    const waiting = other.ask()
    other.refuse('denied')
    expect(waiting.outcome).toBe('waiting')
    other.give()
    expect(waiting.outcome).toBe('served')
  })

  it('gives idle sessions of a contended account back within a second', () => {
    const world = new World()
    world.told = { ...TOLD, accountLimit: 3, accountHeld: 3 }
    world.ask()
    world.open()
    world.give()
    world.now += 700
    world.take(world.ledger.swept(world.now))
    expect(world.closing).toHaveLength(1)
  })

  it('leaves a place of a full account to others, and keeps the rest', () => {
    const world = new World()
    world.told = { ...TOLD, accountLimit: 2, accountHeld: 1 }
    world.ask()
    world.open()
    world.ask()
    world.told = { ...world.told, accountHeld: 2 }
    world.open()
    world.give()
    world.give()
    world.now += 700
    world.take(world.ledger.swept(world.now))
    expect(world.closing).toHaveLength(1)
    expect(world.ledger.count('idle')).toBe(1)
  })

  it('closes an idle session safely before wait_timeout', () => {
    const world = new World({ max: 1 })
    world.told = { ...TOLD, waitTimeoutMs: 2_000 }
    world.ask()
    world.open()
    world.give()
    world.now += 1_400
    world.take(world.ledger.swept(world.now))
    expect(world.closing).toHaveLength(0)
    world.now += 200
    world.take(world.ledger.swept(world.now))
    expect(world.closing).toHaveLength(1)
  })

  it('keeps minIdle sessions, alive by pings', () => {
    const world = new World({ minIdle: 2 })
    world.take(world.ledger.swept(0))
    world.open()
    world.open()
    expect(world.ledger.count('idle')).toBe(2)
    world.now += 120_000
    world.take(world.ledger.swept(world.now))
    expect(world.closing).toHaveLength(0)
    expect(world.checking.map(({ how }) => how)).toEqual(['ping', 'ping'])
  })

  it('cleans a dirty session before anybody gets it', () => {
    const world = new World({ max: 1 })
    world.ask()
    world.open()
    const next = world.ask()
    world.give('dirty')
    expect(world.checking.map(({ how }) => how)).toEqual(['reset'])
    expect(next.outcome).toBe('waiting')
    world.check('heard')
    expect(next.outcome).toBe('served')
  })

  it('counts a ghost until the server has let go of it', () => {
    const world = new World({ max: 1 })
    world.ask()
    world.open()
    const next = world.ask()
    world.ghost()
    expect(world.opening).toHaveLength(0)
    world.lay()
    expect(world.opening).toHaveLength(0)
    world.close()
    expect(world.opening).toHaveLength(1)
    world.open()
    expect(next.outcome).toBe('served')
  })

  it('lends nothing once it is shut, and closes what comes home', () => {
    const world = new World()
    world.ask()
    world.open()
    const waiting = world.ask()
    world.take(world.ledger.shut(world.now))
    expect(waiting.outcome).toBe('refused')
    world.give()
    expect(world.closing).toHaveLength(1)
    world.open()
    expect(world.closing).toHaveLength(2)
  })

  it('lends lanes and leases in one line, and says how many lanes those who wait need', () => {
    const world = new World({ max: 2 })
    world.ask(10_000, true)
    world.ask(10_000, true)
    world.open()
    world.open()
    expect(world.ledger.count('lane')).toBe(2)
    const lease = world.ask()
    const lane = world.ask(10_000, true)
    expect(world.ledger.claims).toBe(2)
    world.give()
    expect(lease.outcome).toBe('served')
    expect(world.ledger.count('leased')).toBe(1)
    expect(world.ledger.claims).toBe(1)
    world.give()
    expect(lane.outcome).toBe('served')
    expect(world.ledger.claims).toBe(0)
  })

  it('lends for reading what is READ ONLY already, and for writing what is not', () => {
    const world = new World()
    for (let i = 0; i < 2; i++) world.ask()
    world.open()
    world.open()
    const [reading, writing] = world.leased as [Slot, Slot]
    reading.readOnly = true
    world.give()
    world.give()
    expect(world.ledger.lend(0, 'lane')).toBe(reading)
    expect(world.ledger.lend(0, 'lane')).toBe(writing)
  })

  it('opens one more session on a wish, and never beyond the ceiling', () => {
    const world = new World({ max: 2 })
    world.ask(10_000, true)
    world.open()
    world.take(world.ledger.wished(0))
    expect(world.opening).toHaveLength(1)
    world.take(world.ledger.wished(0))
    expect(world.opening).toHaveLength(1)
    world.open()
    world.take(world.ledger.wished(0))
    expect(world.opening).toHaveLength(0)
    expect(world.ledger.count('idle')).toBe(1)
  })

  it('keeps its promises through any history', () => {
    const step = fc.oneof(
      {
        weight: 6,
        arbitrary: fc.record({
          do: fc.constant('ask' as const),
          withinMs: fc.integer({ min: 1, max: 20_000 }),
          forLane: fc.boolean(),
        }),
      },
      { weight: 5, arbitrary: fc.record({ do: fc.constant('open' as const) }) },
      {
        weight: 2,
        arbitrary: fc.record({
          do: fc.constant('refuse' as const),
          refusal: fc.constantFrom<Refusal>('limit', 'hourly', 'down', 'denied', 'given-up'),
        }),
      },
      {
        weight: 5,
        arbitrary: fc.record({
          do: fc.constant('give' as const),
          condition: fc.constantFrom<Condition>('clean', 'clean', 'dirty', 'lost'),
          at: fc.nat(5),
          heard: fc.boolean(),
        }),
      },
      {
        weight: 4,
        arbitrary: fc.record({
          do: fc.constant('check' as const),
          outcome: fc.constantFrom<'heard' | 'fit' | 'dead'>('heard', 'fit', 'dead'),
        }),
      },
      { weight: 4, arbitrary: fc.record({ do: fc.constant('close' as const) }) },
      {
        weight: 1,
        arbitrary: fc.record({
          do: fc.constantFrom(
            'ghost' as const,
            'lay' as const,
            'stall' as const,
            'suspect' as const,
            'idleDies' as const,
            'retire' as const,
            'wish' as const,
          ),
        }),
      },
      { weight: 1, arbitrary: fc.record({ do: fc.constant('withdraw' as const), at: fc.nat(20) }) },
      {
        weight: 3,
        arbitrary: fc.record({ do: fc.constant('pass' as const), ms: fc.integer({ min: 1, max: 40_000 }) }),
      },
      {
        weight: 1,
        arbitrary: fc.record({
          do: fc.constant('tell' as const),
          accountLimit: fc.constantFrom(2, 3, Infinity),
          accountHeld: fc.nat(4),
        }),
      },
    )
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 120 }),
        fc.integer({ min: 1, max: 5 }),
        fc.nat(2),
        (steps, max, minIdle) => {
          const world = new World({ max, minIdle: Math.min(minIdle, max) })
          for (const one of steps) {
            switch (one.do) {
              case 'ask':
                world.ask(one.withinMs, one.forLane)
                break
              case 'refuse':
                world.refuse(one.refusal)
                break
              case 'give':
                world.give(one.condition, one.at, one.heard)
                break
              case 'check':
                world.check(one.outcome)
                break
              case 'stall':
                if (world.checking[0]) world.take(world.ledger.stalled(world.checking[0].slot, world.now))
                break
              case 'wish':
                world.take(world.ledger.wished(world.now))
                break
              case 'suspect':
                world.ledger.suspect(world.now)
                break
              case 'idleDies': {
                const idle = [...world.ledger.slots].find((slot) => slot.place === 'idle')
                if (idle) world.take(world.ledger.lost(idle, world.now))
                break
              }
              case 'retire': {
                const [slot] = world.ledger.slots
                if (slot) world.take(world.ledger.retire(slot, 'revoked', world.now))
                break
              }
              case 'withdraw': {
                const waiting = world.callers.filter(({ outcome }) => outcome === 'waiting')
                const caller = waiting[one.at % Math.max(1, waiting.length)]
                if (caller && world.ledger.withdrawn(caller)) caller.outcome = 'withdrawn'
                break
              }
              case 'pass':
                world.now += one.ms
                world.take(world.ledger.swept(world.now))
                break
              case 'tell':
                world.told = { ...TOLD, accountLimit: one.accountLimit, accountHeld: one.accountHeld }
                break
              default:
                world[one.do]()
            }
          }
          // First come, first served: among those who were served, nobody overtook one who was waiting at the time.
          const ids = world.served.map(({ id }) => id)
          expect(ids).toEqual([...ids].sort((a, b) => a - b))
          // And in the end everything comes home.
          world.take(world.ledger.shut(world.now))
          for (let turn = 0; turn < 200 && world.ledger.held > 0; turn++) {
            world.open()
            world.give()
            world.check('heard')
            world.lay()
            world.close()
          }
          expect(world.ledger.held).toBe(0)
          expect(world.ledger.waiting).toBe(0)
        },
      ),
      { numRuns: 2_000 },
    )
  })
})

describe('a line of waiters', () => {
  it('lets a hundred thousand join and leave from anywhere in linear time', () => {
    const world = new World({ max: 1 })
    world.ask()
    world.open()
    const callers = Array.from({ length: 100_000 }, (_, id) => new Caller(id, 60_000, false))
    for (const caller of callers) world.ledger.asked(caller, 0)
    expect(world.ledger.waiting).toBe(100_000)
    for (let i = 0; i < callers.length; i += 2) world.ledger.withdrawn(callers[i]!)
    for (let i = callers.length - 1; i > 0; i -= 2) world.ledger.withdrawn(callers[i]!)
    expect(world.ledger.waiting).toBe(0)
  })
})
