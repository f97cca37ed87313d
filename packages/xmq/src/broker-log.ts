import { createLogger, type LogFormat, type Logger, type LogLevel } from '@xmq/broker'
import { hasColor, type Io } from './io.ts'

/** The broker's log: lines on stderr, so that stdout stays free for results. */
export function brokerLog(io: Io, level: LogLevel, format: LogFormat): Logger {
  const isText = format === 'text' || (format === 'auto' && io.stderr.isTTY === true)
  return createLogger({
    level,
    format: isText ? 'text' : 'json',
    color: isText && hasColor(io, 'stderr'),
    write: (line) => io.stderr.write(line),
  })
}
