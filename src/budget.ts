/**
 * The right to hold one session. Disposing gives it back, and means that the server has let go of the session; a second
 * dispose does nothing.
 */
export interface Permit extends Disposable {
  /** Aborts when the right is wanted back: the session is retired, now if it is idle, at its release if it is leased. */
  readonly revoked: AbortSignal
  /** Kept by the holder: whether nobody works on the session now. Who grants permits takes idle ones back first. */
  idle: boolean
}

/** What a session of an account learned of the limits that the account's holders share. */
export interface AccountLimit {
  /** Sessions that the account may hold at once, over all its holders; Infinity when there is no limit. */
  readonly maxSessions: number
}

/** Who may open sessions: a counter for each account in this process by default, later a host's or a fleet's. */
export interface Budget {
  /**
   * Resolves when one more session may be opened. Rejects with the signal's reason when it aborts first.
   */
  reserve(signal: AbortSignal): Promise<Permit>
  /** A session has told what limit holds for the account. */
  learned?(limit: AccountLimit): void
}
