import type { Clock } from '../clock.js'
import type { Driver } from '../driver.js'
import type { ConnectConfig } from './config.js'

export function mariadbDriver(_config: ConnectConfig, _clock?: Clock): Driver {
  throw new Error('not yet')
}
