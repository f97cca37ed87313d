import { describe, expect, it } from 'vitest'
import { nearestOf, suggest } from '@xmq/protocol'

const known = ['concurrency', 'prefetch', 'publishTimeout', 'ttl', 'tls']

describe('the nearest known word', () => {
  it.each([
    ['prefetc', 'prefetch'],
    ['PREFETCH', 'prefetch'],
    ['concurency', 'concurrency'],
    ['publishTimeuot', 'publishTimeout'],
    ['lts', 'tls'],
    ['tll', 'ttl'],
    ['somethingElse', undefined],
  ])('to %s is %s', (word, nearest) => expect(nearestOf(word, known)).toBe(nearest))

  it('is suggested, beside all that there are', () => {
    expect(suggest('tlss', ['ttl', 'tls'])).toBe("; did you mean 'tls'? Known: ttl, tls.")
    expect(suggest('queue', ['ttl', 'tls'])).toBe('. Known: ttl, tls.')
  })
})
