import { describe, expect, it } from 'vitest'
import { saslPrep } from '@xmq/protocol'

describe('saslPrep', () => {
  // The first five are RFC 4013 section 3's own examples.
  it.each([
    ['I\u00adX', 'IX'],
    ['user', 'user'],
    ['USER', 'USER'],
    ['\u00aa', 'a'],
    ['\u2168', 'IX'],
    ['a\u00a0b\u3000c', 'a b c'],
    ['u\u0308ber', 'über'],
    ['пароль 漢字 🦄', 'пароль 漢字 🦄'],
  ])('makes %j into %j', (text, prepared) => {
    expect(saslPrep(text, 'password')).toBe(prepared)
  })

  it.each([
    ['\u0007', 'U+0007'],
    ['ok\n', 'U+000A'],
    ['a\0b', 'U+0000'],
    ['\ue000', 'U+E000'],
    ['\ud800', 'U+D800'],
    ['\u202e', 'U+202E'],
    ['\u{e0041}', 'U+E0041'],
  ])('refuses %j, naming what it is and not the text', (text, code) => {
    expect(() => saslPrep(`secret${text}`, 'password')).toThrow(
      expect.objectContaining({ code: 'bad-request', message: expect.stringContaining(code) }),
    )
    expect(() => saslPrep(`secret${text}`, 'password')).not.toThrow(/secret/)
  })
})
