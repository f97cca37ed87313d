/** Every bound of the wire, with where it comes from. docs/protocol.md "Sizes" explains them. */

/** Most elements open at once inside a stanza, the stanza counted. ejabberd 23.01 crashes on thousands. */
export const DEPTH_MAX = 32
/** Most attributes of one element, namespace declarations counted. */
export const ATTRIBUTES_MAX = 64
/** Most bytes of a stanza that is read: servers re-escape what a client wrote, quotes sixfold. */
export const READ_STANZA_BYTES_MAX: number = 2 * 1024 * 1024
/**
 * Most bytes of a stanza that is written, counted by `wireLength`. Clients on ejabberd and Prosody may send 256 KiB; one
 * byte more closes their stream.
 */
export const WRITE_STANZA_BYTES_MAX: number = 200 * 1024
/** Most bytes of a topic. */
export const TOPIC_BYTES_MAX = 255
/** Most seconds of a subscription's ttl that the wire carries: a year. A queue's own cap is lower. */
export const TTL_SECONDS_MAX = 31_536_000
/** Above this load a consumer gets nothing. */
export const LOAD_ELIGIBLE_MAX = 90
