/** Node's signals. Apart from node.ts, so that a command that only waits for its end loads no XMPP. */

/** Calls back on each SIGTERM and SIGINT, with the exit code of such an end. Returns how to stop that. */
export function onStopSignal(listener: (exitCode: number) => void): () => void {
  // 128 + the signal's number, as a shell has it.
  const onInterrupt = (): void => listener(130)
  const onTerminate = (): void => listener(143)
  process.on('SIGINT', onInterrupt)
  process.on('SIGTERM', onTerminate)
  return () => {
    process.off('SIGINT', onInterrupt)
    process.off('SIGTERM', onTerminate)
  }
}
