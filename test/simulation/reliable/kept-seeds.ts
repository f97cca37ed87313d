/**
 * Seeds of the reliable simulation that once found a fault, each with what it found. They run before all others, for ever; when the
 * world draws something new they are runs as any other, and the unit tests know what they found.
 */
export const RELIABLE_KEPT_SEEDS: readonly number[] = [
  // A nack that was looked up was done after the extend that came behind it, and its lease stayed for ever.
  1725,
  // The same of a release that waited for the nack before it in its batch.
  1980,
  // A late receipt with settles on it, over the stream after a break: the oracle took it for one that counts.
  6052,
  // w2@localhost#c1: the handler of 3@1000200 is not told that its lease is lost
  425,
  // An answer to what passed for lost came after the answer to its repetition: the oracle took it for one that counts.
  3249,
  // A lease that an answer had called over, which may have passed for lost: the oracle took the end of its handler for owed to it.
  1432,
  // The confirm of a message whose id was used anew before it left: the oracle took it for a second one.
  1040, 9630,
  // A lease that was received late: the oracle gave it less than its period.
  2887,
  // A plain message that may have been lost with the stream of the queue was taken to have arrived, for a ping over the next one.
  161,
  // A worker in doubt was asked more than it has credit for: nobody else was there.
  859,
  // A worker that subscribed again was asked as if it had no request from before.
  631,
  // A worker that was back, and had named what it holds before it subscribed, lost it with its old session.
  1146,
  // The network doubled a batch: the first was refused, which its producer was told, and the second stored.
  828,
  // A delivery left in the very millisecond in which its stream broke, and its lease was extended for a worker that is awaited.
  3641,
]
