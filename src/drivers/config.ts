import { pid } from 'node:process'

/** Where to connect, and as whom. Handed to either driver, which get from it what they call it themselves. */
export interface ConnectConfig {
  readonly host?: string | undefined
  readonly port?: number | undefined
  /** A unix socket; `host` and `port` are not looked at then. */
  readonly socketPath?: string | undefined
  /** The local address to connect from. */
  readonly localAddress?: string | undefined
  readonly user?: string | undefined
  /** A function is called at each connect, so that credentials may rotate. */
  readonly password?: string | (() => string | Promise<string>) | undefined
  readonly database?: string | undefined
  /** A character set (`utf8mb4`) or a collation (`utf8mb4_unicode_ci`); utf8mb4 by default. */
  readonly charset?: string | undefined
  readonly timezone?: string | undefined
  readonly ssl?: boolean | string | object | undefined
  /** How sessions announce themselves to the server (`performance_schema.session_account_connect_attrs`). */
  readonly connectAttributes?: Readonly<Record<string, string>> | undefined
  /** Handed through to the driver as they are. They win over Holdfast's defaults. */
  readonly driverOptions?: Readonly<Record<string, unknown>> | undefined
}

/** Of a pool's options. */
export function connectConfig(
  options: Omit<ConnectConfig, 'connectAttributes' | 'localAddress'> & { readonly name?: string },
): ConnectConfig {
  const {
    host,
    port,
    socketPath,
    user,
    password,
    database,
    charset,
    timezone,
    ssl,
    driverOptions,
    name = 'holdfast',
  } = options
  const connectAttributes = { program_name: name, _pid: String(pid) }
  return { host, port, socketPath, user, password, database, charset, timezone, ssl, driverOptions, connectAttributes }
}

/** A fresh password for one connect. */
export async function passwordOf(config: ConnectConfig): Promise<string | undefined> {
  return typeof config.password === 'function' ? await config.password() : config.password
}

/** Without what is undefined, which drivers take for a value. */
export function defined(options: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))
}
