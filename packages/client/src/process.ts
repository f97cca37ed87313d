/** How a process of Node's begins and ends: `@xmq/client/process`. Apart from the SDK, since a broker's start is not to wait for a client's code. */
export { EXIT_CODES, type ExitCode, exitCodeOf } from './exit-codes.ts'
export { certificatesProblem } from './platform/certificates-node.ts'
export { listenForStop } from './signals.ts'
