/** How clients and workers begin, and end when a signal fires. */
import { XmqError } from '@xmq/protocol'
import { abortError } from './abort-error.ts'
import type { ConnectionEmitter } from './connection-events.ts'
import type { Unsubscribe } from './events.ts'
import type { Runtime } from './runtime.ts'

/**
 * Starts a runtime and waits for its first success; on failure everything is closed.
 * @param ready resolves when the caller has what it wants
 */
export async function firstConnection(
  runtime: Runtime,
  ready: Promise<void>,
  emitter: ConnectionEmitter,
  { signal, connectTimeoutMs }: { signal: AbortSignal | undefined; connectTimeoutMs: number | undefined },
): Promise<void> {
  if (signal?.aborted === true) throw abortError(signal)
  let timer: ReturnType<typeof setTimeout> | undefined
  let last: XmqError | undefined
  const offs: Unsubscribe[] = []
  const failed = new Promise<never>((_resolve, reject) => {
    offs.push(
      emitter.on('offline', ({ reason }) => void (last = reason)),
      emitter.on('waiting', ({ reason }) => void (last = reason)),
      emitter.on('closed', ({ reason }) => reject(reason ?? new XmqError('closed', 'Closed before it was connected.'))),
    )
    if (signal !== undefined) {
      const onAbort = (): void => reject(abortError(signal))
      signal.addEventListener('abort', onAbort, { once: true })
      offs.push(() => signal.removeEventListener('abort', onAbort))
    }
    if (connectTimeoutMs !== undefined) {
      timer = setTimeout(() => reject(notConnected(connectTimeoutMs, last)), connectTimeoutMs)
    }
  })
  try {
    runtime.dispatch({ type: 'start' })
    await Promise.race([ready, failed])
  } catch (error) {
    const reason = XmqError.from(error)
    const wasClosed = runtime.status.state === 'closed'
    await runtime.close(reason)
    if (!wasClosed) emitter.emit('closed', { reason })
    throw reason
  } finally {
    clearTimeout(timer)
    for (const off of offs) off()
  }
}

/** Calls back when a signal fires, or at once when it has fired already. Returns how to stop that. */
export function whenAborted(signal: AbortSignal | undefined, listener: (reason: XmqError) => void): Unsubscribe {
  if (signal === undefined) return () => {}
  const onAbort = (): void => listener(abortError(signal))
  if (signal.aborted) onAbort()
  else signal.addEventListener('abort', onAbort, { once: true })
  return () => signal.removeEventListener('abort', onAbort)
}

function notConnected(timeoutMs: number, last: XmqError | undefined): XmqError {
  const text = `Not connected within ${timeoutMs} ms.${last === undefined ? '' : ` ${last.message}`}`
  return new XmqError(last?.code ?? 'connection-lost', text, {
    cause: last,
    ...(last && { condition: last.condition }),
  })
}

/** Whether a promise settles in time. */
export async function endsWithin(promise: Promise<unknown>, timeoutMs: number): Promise<boolean> {
  let timer: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), timeoutMs)
  })
  try {
    return await Promise.race([promise.then(() => true), late])
  } finally {
    clearTimeout(timer)
  }
}
