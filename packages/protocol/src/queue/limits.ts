/** The bounds of `xmq:queue:1`. docs/protocol-reliable.md "Bounds" has the same table. */
import { TTL_SECONDS_MAX } from '../limits.ts'

/** Most items of one `<publish/>` or `<deliver/>`, and most settlements of one `<settle/>`. */
export const BATCH_ITEMS_MAX = 1000
/** Most bytes of UTF-8 of an id, a lease token, or a request's name in `<cancel/>` and `<progress/>`. */
export const ID_BYTES_MAX = 256
/** Most bytes of UTF-8 of an address (RFC 7622): three parts of 1023, and two separators. */
export const JID_BYTES_MAX = 3071
/** Most news of one request, and most bytes of one as `wireLength` counts. */
export const PROGRESS_MAX = 10_000
export const PROGRESS_BYTES_MAX: number = 16 * 1024
/** Most bytes of an epoch, the name of a broker's life and stream. */
export const EPOCH_BYTES_MAX = 64
/** Most bytes of UTF-8 of a key. */
export const KEY_BYTES_MAX = 255
/** Most bytes of UTF-8 of a durable subscription's name. */
export const SUBSCRIPTION_NAME_BYTES_MAX = 128
/** The highest priority; 0 is the lowest and the default. */
export const PRIORITY_MAX = 9
/** Longest delay of a publish or a nack, and longest ttl of a message, in milliseconds: a year. */
export const DELAY_MS_MAX: number = TTL_SECONDS_MAX * 1000
/** Longest lease that the wire carries, in milliseconds: a day. */
export const LEASE_MS_MAX = 86_400_000
/** Most credit that a consumer may offer. */
export const CREDIT_MAX = 10_000
/** Most headers of a message. */
export const HEADERS_MAX = 32
/** Most bytes of UTF-8 of all names and values of a message's headers together. */
export const HEADERS_BYTES_MAX = 8192
/** Longest text of a nack, a reject or a history entry, in UTF-16 units; what is longer is cut, never refused. */
export const REASON_LENGTH_MAX = 1000
/** Most bytes of UTF-8 of one attribute of `<worker/>`. */
export const WORKER_BYTES_MAX = 256
/** Most entries of one page of `<browse/>` and `<dead-letters/>`, and most topics of one of `<stats/>`. */
export const PAGE_MAX = 500
