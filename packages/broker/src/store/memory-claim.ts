/**
 * One claim from a line of the memory store: the first entries of its lanes, by priority and then by order, until the grants are
 * used up or the bytes are. What has expired is passed over, and told; whoever claims decides what becomes of it.
 *
 * Invariants:
 * 1. A claim finds the first entry of its lanes in O(log lanes), and leases what it takes at once.
 * 2. What it passed over is back in its lane when it ends. It passes over a bounded number.
 */
import { isClaimedBefore, type Lane } from './memory-lane.ts'
import { type Entry, headOf, type Line } from './memory-line.ts'
import { CLAIM_SKIPS_MAX, type ClaimAnswer, type ClaimedMessage, type ClaimRequest, type EntryHead } from './port.ts'
import { SlotHeap } from './slot-heap.ts'

/** A lane that a claim takes from, by its first entry. */
interface LaneHead {
  readonly lane: Lane<Entry>
  first: Entry
  slot: number
}

type LaneHeads = SlotHeap<'slot', LaneHead>

function headsOf(lanes: readonly Lane<Entry>[]): LaneHeads {
  const heads: LaneHeads = new SlotHeap('slot', (left, right) => isClaimedBefore(left.first, right.first))
  for (const lane of lanes) if (lane.first !== undefined) heads.add({ lane, first: lane.first, slot: -1 })
  return heads
}

/** After the first entry of a lane has left it. */
function advance(heads: LaneHeads, head: LaneHead): void {
  heads.remove(head)
  const { first } = head.lane
  if (first === undefined) return
  head.first = first
  heads.add(head)
}

/** Leases what a line has for a request. */
export function claimFrom(line: Line, request: ClaimRequest): ClaimAnswer {
  const { grants, now, leaseMs, bytesMax } = request
  const lanes = headsOf(line.lanes(request.topics))
  const messages: ClaimedMessage[] = []
  const expired: EntryHead[] = []
  const passedOver: Entry[] = []
  let bytes = 0
  let more = false
  while (messages.length < grants.length) {
    const head = lanes.first
    if (head === undefined) break
    const { first } = head
    if (expired.length === CLAIM_SKIPS_MAX || (messages.length > 0 && bytes + first.message.bytes > bytesMax)) {
      more = true
      break
    }
    if (first.expiresAt !== undefined && first.expiresAt <= now) {
      expired.push(headOf(first))
      passedOver.push(first)
      line.hide(first)
      advance(lanes, head)
      continue
    }
    const grant = grants[messages.length] as ClaimRequest['grants'][number]
    bytes += first.message.bytes
    first.deliveries += 1
    Object.assign(first, { token: grant.token, holder: grant.holder, claimedAt: now, received: false })
    first.hasCountedFailure = false
    line.move(first, 'leased', now + leaseMs)
    messages.push(claimedOf(first, grant))
    advance(lanes, head)
  }
  for (const entry of passedOver) line.show(entry)
  return { status: 'ok', messages, expired, corrupt: [], more }
}

function claimedOf(entry: Entry, grant: ClaimRequest['grants'][number]): ClaimedMessage {
  const { message, line, expiresAt, failures, deliveries } = entry
  const { topic, id, sender, key, priority, body, meta } = message.op
  return {
    queue: line.queue,
    subscription: line.subscription,
    seq: message.seq,
    token: grant.token,
    holder: grant.holder,
    topic,
    id,
    sender,
    key,
    priority,
    publishedAt: message.publishedAt,
    expiresAt,
    failures,
    deliveries,
    body,
    meta,
  }
}
