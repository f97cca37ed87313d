/** Certificate authorities as Node takes them. Apart from node.ts, so that a command may check them without loading XMPP. */
import { X509Certificate } from 'node:crypto'

const CERTIFICATE = /-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----[^-]*-----END (?:X509 |TRUSTED )?CERTIFICATE-----/g

/**
 * What is wrong with PEM text that names certificate authorities; `undefined` when nothing is. TLS itself takes what it can read, says
 * nothing of the rest, and then trusts nobody.
 *
 * @returns how a sentence about the text goes on: `holds no certificate …`
 */
export function certificatesProblem(pem: string): string | undefined {
  const certificates = pem.match(CERTIFICATE) ?? []
  if (certificates.length === 0) {
    return (
      'holds no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----; ' +
      'one in DER is made PEM by openssl x509 -inform der'
    )
  }
  for (const [at, certificate] of certificates.entries()) {
    const problem = readProblem(certificate)
    if (problem === undefined) continue
    return `holds a certificate that cannot be read, number ${at + 1} of ${certificates.length}: ${problem}`
  }
  return undefined
}

function readProblem(certificate: string): string | undefined {
  try {
    // Reading it is the test.
    void new X509Certificate(certificate)
    return undefined
  } catch (error) {
    return (error as Error).message
  }
}
