/** Every XML namespace that XMQ speaks, by the document that defines it. */

/** RFC 6120: stanzas between a client and its server. Component streams are normalised to it on reading. */
export const NS_CLIENT = 'jabber:client'
/** XEP-0114: stanzas between a component and its server. */
export const NS_COMPONENT = 'jabber:component:accept'
/** RFC 6120 4.8.2: the stream root. */
export const NS_STREAM = 'http://etherx.jabber.org/streams'
/** RFC 6120 4.9.3. */
export const NS_STREAM_ERROR = 'urn:ietf:params:xml:ns:xmpp-streams'
/** RFC 6120 8.3.3. */
export const NS_STANZA_ERROR = 'urn:ietf:params:xml:ns:xmpp-stanzas'
/** RFC 6120 6. */
export const NS_SASL = 'urn:ietf:params:xml:ns:xmpp-sasl'
/** RFC 6120 7. */
export const NS_BIND = 'urn:ietf:params:xml:ns:xmpp-bind'
/** RFC 3921 3, kept for old clients. */
export const NS_SESSION = 'urn:ietf:params:xml:ns:xmpp-session'
/** RFC 7395. */
export const NS_FRAMING = 'urn:ietf:params:xml:ns:xmpp-framing'
/** The namespace that the prefix `xml` is bound to, always. */
export const NS_XML = 'http://www.w3.org/XML/1998/namespace'

/** mod_xmq: subscriptions. */
export const NS_COMMAND = 'xmq:command'
/** mod_xmq: the topic of a message or request. */
export const NS_TOPIC = 'xmq:topic'
/** XMQ: everything that mod_xmq has not. */
export const NS_QUEUE = 'xmq:queue:1'
/** The feature of disco#info of a queue that takes packed items. */
export const FEATURE_PACKED = 'xmq:queue:1#packed'

/** XEP-0030. */
export const NS_DISCO_INFO = 'http://jabber.org/protocol/disco#info'
/** XEP-0030. */
export const NS_DISCO_ITEMS = 'http://jabber.org/protocol/disco#items'
/** XEP-0004, for XEP-0128 forms. */
export const NS_DATA_FORM = 'jabber:x:data'
/** XEP-0033. */
export const NS_ADDRESS = 'http://jabber.org/protocol/address'
/** XEP-0092. */
export const NS_VERSION = 'jabber:iq:version'
/** XEP-0199. */
export const NS_PING = 'urn:xmpp:ping'
/** XEP-0280. */
export const NS_CARBONS = 'urn:xmpp:carbons:2'
/** XEP-0334. */
export const NS_HINTS = 'urn:xmpp:hints'
/** XEP-0335. */
export const NS_JSON = 'urn:xmpp:json:0'
/** XEP-0359. */
export const NS_STANZA_ID = 'urn:xmpp:sid:0'
