import type { ViteUserConfig } from 'vitest/config'

const config: ViteUserConfig = {
  test: {
    include: ['src/**/*.test.ts', 'test/**/*.test.ts'],
    globalSetup: 'scripts/before-tests.mjs',
    pool: 'forks', // a server started by a test is tied to the life of a process
    maxWorkers: 2, // as many as the cores of the machines that this runs on: a starved test measures itself
    testTimeout: 60_000,
    // Servers, networks and clocks are real here, and machines noisy: late once is noise, late three times is a fault.
    retry: 2,
    hookTimeout: 60_000,
  },
}
export default config
