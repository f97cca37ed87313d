/** A rule that was broken: what every oracle throws. */
export class Violation extends Error {
  override readonly name = 'Violation'
}
