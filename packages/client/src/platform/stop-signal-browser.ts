/** Browsers have no signals. Its counterpart is stop-signal-node.ts. */

/** Never calls back. */
export function onStopSignal(): () => void {
  return () => {}
}
