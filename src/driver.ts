import type { Permit } from './budget.js'

/** MariaDB and MySQL share a protocol but not their error numbers: 4031 is an idle close on one and a trigger on the other. */
export type Flavour = 'mariadb' | 'mysql'

export interface Server {
  readonly flavour: Flavour
  /** As the server gives it in its greeting, e.g. `10.11.19-MariaDB-0+deb12u1`. */
  readonly version: string
}

/** Settings of the server that decide what an error means. What is not known is taken to be at its default. */
export interface ServerTraits {
  /** `@@max_allowed_packet` */
  readonly maxAllowedPacket?: number | undefined
  /** `@@innodb_snapshot_isolation` (MariaDB; on by default from 11.6.2) */
  readonly snapshotIsolation?: boolean | undefined
  /** `@@innodb_rollback_on_timeout` */
  readonly rollbackOnTimeout?: boolean | undefined
}

export interface Statement {
  readonly sql: string
  /** For the `?` of the text (an array), or named placeholders (an object) where the driver is set to them. */
  readonly values?: unknown
  /** Send it as a prepared statement (binary protocol). */
  readonly prepare?: boolean
}

/** One row: an object by column name, unless the driver is set to give arrays. */
// oxlint-disable-next-line typescript/no-explicit-any -- what a row holds is known to the caller only
export type Row = any

export interface Result<R = Row> {
  /** The rows of the (first) row set; empty for a statement that gives none. */
  readonly rows: R[]
  /** The driver's own description of the columns; empty for a statement that gives no rows. */
  readonly fields: readonly unknown[]
  /** Rows matched (both drivers set FOUND_ROWS); 0 for a statement that gives rows. */
  readonly affectedRows: number
  /** The first generated AUTO_INCREMENT value, 0 when none; a bigint beyond 2^53. */
  readonly insertId: number | bigint
  /** Number of warnings; 0 where the driver does not say. */
  readonly warnings: number
  /** Every result, when the statement gave more than one (CALL, several statements in one text). */
  readonly results?: readonly Result[]
}

/** Rows as they come. Nothing is read from the server faster than it is taken. */
export interface RowStream<R = Row> extends AsyncIterator<R, undefined, undefined> {
  /** True once the server has sent the whole result (or refused the statement): the session can be used again. */
  readonly complete: boolean
  /** Bytes that came so far: a server that is slow and a peer that is silent look alike otherwise. */
  readonly received: number
  /** Throw away what still comes, so that `complete` can be reached. */
  discard(): void
}

/** Who waits for the reply to a statement that was sent behind others. One of the two is called, once. */
export interface Answer {
  resolve(result: Result): void
  /** With a Fault. */
  reject(fault: unknown): void
}

/**
 * One authenticated server connection, as a driver gives it. It runs one statement at a time: whoever holds it waits for
 * one call before the next, but for `pipe`. Its methods reject with a {@link Fault}.
 */
export interface Session {
  /** The server's own number for this connection (CONNECTION_ID()). */
  readonly threadId: number
  readonly server: Server
  /** Settles once, when the connection is gone, with the reason if there is one; never rejects. */
  readonly ended: Promise<Error | undefined>
  /** The free look: false once the socket was seen closed or failed. Costs nothing and asks nobody. */
  readonly alive: boolean
  /** Whether statements can be written one behind the other without waiting for the replies: whether there is `pipe`. */
  readonly pipelines: boolean
  /** Why it does not pipeline, in a few words. */
  readonly unpipelined?: string
  /** Bytes that came so far. */
  readonly received?: number
  /** Set by whoever learned them: failures are classified more exactly then. */
  traits?: ServerTraits
  query(statement: Statement): Promise<Result>
  stream(statement: Statement): RowStream
  /**
   * Sends a statement at once, behind those under way; any number may be. One `query` may follow them before they are
   * answered. What the driver refuses before it writes (arguments that it does not take) is a `client` fault and harms no
   * other. Any other failure that is not the server's answer ends the connection, and all that is under way is rejected as lost.
   */
  pipe?(statement: Statement, answer: Answer): void
  ping(): Promise<void>
  /** COM_RESET_CONNECTION, or the nearest that the driver has: rolls back, frees locks, drops session state. */
  reset(): Promise<void>
  /** Says goodbye, then resolves when the server has hung up, at the latest after `withinMs`; never rejects. */
  close(withinMs: number): Promise<void>
  /** Drops the connection at once (RST), whatever it is doing. What was under way rejects. */
  destroy(): void
  /** Whether this connection keeps the process alive. */
  hold(on: boolean): void
}

export interface Driver {
  readonly name: string
  /**
   * Opens a session: name resolution, TCP, TLS, authentication. Rejects with a {@link Fault}; when `signal` aborts, at
   * once, and nothing of the attempt remains.
   */
  connect(permit: Permit, signal: AbortSignal): Promise<Session>
}
