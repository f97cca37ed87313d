/** A random id for stanzas, which nobody guesses: 122 bits or more. */
export function randomId(): string {
  // Browsers hide randomUUID from pages that did not come over https.
  const source: Pick<Crypto, 'getRandomValues'> & Partial<Crypto> = globalThis.crypto
  return source.randomUUID?.() ?? uuidOf(source.getRandomValues(new Uint8Array(16)))
}

/** A UUID of version 4 (RFC 9562). */
function uuidOf(bytes: Uint8Array): string {
  bytes[6] = ((bytes[6] as number) & 0x0f) | 0x40
  bytes[8] = ((bytes[8] as number) & 0x3f) | 0x80
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`
}
