/** Text that breaks whatever decodes bytes carelessly: scripts of one to four bytes a character, joined and combined ones. */
import { utf8Length } from '@xmq/protocol'

const SAMPLE =
  'Grüße Ελληνικά Кириллица עברית العربية हिन्दी ไทย 日本語 한국어 中文 ქართული አማርኛ é̂́ ' +
  '😀👩‍👩‍👧‍👦🏳️‍🌈🇨🇭👍🏽 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 𠜎 a\u00a0b\u200dc '

/** Exactly `count` characters (code points). */
export function sampleOfCharacters(count: number): string {
  const characters = Array.from(SAMPLE)
  let text = ''
  for (let index = 0; index < count; index++) text += characters[index % characters.length]
  return text
}

/** Exactly `bytes` bytes of UTF-8, ending with one-byte characters where a whole one would not fit. */
export function sampleOfBytes(bytes: number): string {
  const characters = Array.from(SAMPLE)
  let text = ''
  let length = 0
  for (let index = 0; ; index++) {
    const character = characters[index % characters.length] as string
    const next = length + utf8Length(character)
    if (next > bytes) return text + '.'.repeat(bytes - length)
    text += character
    length = next
  }
}
