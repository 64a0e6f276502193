import { createServer } from 'node:net'

/**
 * A port that nobody listens on, below the range that the kernel takes outgoing ports from: a server that is down keeps its
 * port free for the restart, and nobody who dials it meanwhile can be connected to himself.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 22_000)
    if (await isFree(port)) return port
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}
