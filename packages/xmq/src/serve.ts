import { createBroker, describeConfig } from '@xmq/broker'
import { XmqError } from '@xmq/protocol'
import { brokerLog } from './broker-log.ts'
import { loadConfig, type ConfigFlags } from './config-file.ts'
import { EXIT, exitCodeOf, type ExitCode } from './exit.ts'
import { untilStopped, type Io } from './io.ts'

/** `xmq serve`: runs the broker until SIGINT or SIGTERM, or until a second broker on its domain makes it give up. */
export async function serve(io: Io, flags: ConfigFlags): Promise<ExitCode> {
  const { config, file, warnings } = loadConfig(io, flags)
  const log = brokerLog(io, config.log.level, config.log.format)
  for (const warning of warnings) log.warn(warning)
  const broker = createBroker(config, { log })
  const stop = untilStopped(io)
  let fatalError: XmqError | undefined
  const fatal = new Promise<XmqError>((resolve) => {
    broker.on('fatal', (error) => {
      fatalError = error
      resolve(error)
    })
  })
  log.info('starting', { config: file, store: String(describeConfig(config)['store']), queues: config.queues.length })
  try {
    await broker.start({ signal: stop.signal })
    log.info('serving', {
      queues: config.queues
        .map((queue) => queue.address)
        .slice(0, 20)
        .join(' '),
    })
    const reason = await Promise.race([stop.done, fatal])
    if (reason instanceof XmqError) throw reason
    log.info('stopping')
    return EXIT.ok
  } catch (error) {
    if (stop.signal.aborted) return EXIT.ok
    const reason = XmqError.from(error)
    // The broker has logged what is fatal.
    if (reason !== fatalError) log.error('the broker did not start', { code: reason.code, text: reason.message })
    return exitCodeOf(reason)
  } finally {
    await broker.stop()
    stop.release()
    log.info('stopped')
  }
}
