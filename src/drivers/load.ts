import type { Clock } from '../clock.js'
import type { Driver } from '../driver.js'
import type { ConnectConfig } from './config.js'
import { installedDriver, type DriverName } from './installed.js'
import { mariadbDriver } from './mariadb.js'
import { mysql2Driver } from './mysql2.js'

const MAKERS = { mysql2: mysql2Driver, mariadb: mariadbDriver }

/**
 * The driver of that name, or the one that is installed: mysql2 when both are.
 * @throws HoldfastError OPTION_INVALID, with what to type, when there is none or when it is too old
 */
export function findDriver(name?: DriverName): (config: ConnectConfig, clock?: Clock) => Driver {
  return MAKERS[installedDriver(name).name]
}
