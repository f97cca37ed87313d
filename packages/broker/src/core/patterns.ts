/** Compiled topic filters: a pattern is matched against many topics. docs/protocol-reliable.md "Patterns". */
import { isPattern } from '@xmq/protocol'

/** Tells whether a topic is meant. */
export type TopicMatcher = (topic: string) => boolean

/** Makes a filter ready. `*` is one segment, a last `>` one or more; an exact topic means itself. */
export function compileFilter(filter: string): TopicMatcher {
  if (!isPattern(filter)) return (topic) => topic === filter
  if (filter === '>') return () => true
  const segments = filter.split('.')
  const isOpen = segments.at(-1) === '>'
  const fixed = isOpen ? segments.slice(0, -1) : segments
  // The part before the first wildcard decides for most topics, without splitting them.
  const wild = fixed.indexOf('*')
  const prefix = wild === -1 ? fixed.join('.') : fixed.slice(0, wild).join('.')
  const start = prefix === '' ? '' : `${prefix}.`
  const isSimple = isOpen && wild === -1
  return (topic) => {
    if (!topic.startsWith(start)) return false
    // `a.>` means what has at least one segment behind `a.`, and an empty one is a segment too.
    if (isSimple) return true
    return matchesSegments(fixed, isOpen, topic.split('.'))
  }
}

function matchesSegments(fixed: readonly string[], isOpen: boolean, segments: readonly string[]): boolean {
  if (isOpen ? segments.length <= fixed.length : segments.length !== fixed.length) return false
  for (let at = 0; at < fixed.length; at++) if (fixed[at] !== '*' && fixed[at] !== segments[at]) return false
  return true
}
