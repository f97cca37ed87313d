/**
 * Patterns: topic filters of reliable subscriptions. docs/protocol-reliable.md "Patterns".
 *
 *     orders.*      one segment:            orders.eu, not orders, not orders.eu.new
 *     orders.>      one or more, last only: orders.eu, orders.eu.new, not orders
 *     orders.a*b    no pattern: a star inside a segment is a star
 */
import { XmqError } from '../errors.ts'
import { assertTopic } from '../topic.ts'

/** Whether a subscription's topic is a pattern. A plain `sub` never is one: it is always exact. */
export function isPattern(topic: string): boolean {
  return topic.split('.').some((segment) => segment === '*' || segment === '>')
}

/**
 * Checks a topic or pattern: a topic's rules, and `>` nowhere but at the end.
 * @throws XmqError `bad-request`
 */
export function assertPattern(pattern: string): void {
  assertTopic(pattern)
  const early = pattern.split('.').indexOf('>')
  if (early !== -1 && early !== pattern.split('.').length - 1) {
    throw new XmqError('bad-request', `In the pattern '${pattern}' stands '>' before the end; use '*' for one segment.`)
  }
}

/** Whether a topic is one of those that a pattern means. An exact topic means itself. */
export function matchesPattern(pattern: string, topic: string): boolean {
  if (!isPattern(pattern)) return pattern === topic
  const filter = pattern.split('.')
  const segments = topic.split('.')
  for (const [at, segment] of filter.entries()) {
    if (segment === '>') return segments.length > at
    if (at >= segments.length || (segment !== '*' && segment !== segments[at])) return false
  }
  return filter.length === segments.length
}
