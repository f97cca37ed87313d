/**
 * The parts of the core, and which of them tells which.
 *
 *     publishing --> store --> confirm             claimable --> dispatch --> store --> deliveries --> leases
 *                                                  received, settled --> settling --> store --> answer
 *                                                  over, session ended --> leases, store-time --> store
 *                                                  all of it while the store does not answer --> unheard --> store
 *     a stream is up, is down --> sessions, absences, deliveries, reconnecting
 *
 * Owner of the wiring alone: each part is made once, here, with the parts that it needs, and lives as long as the core.
 *
 * Invariants:
 * 1. A part is given those that it calls, and a function for what it only reports.
 * 2. They know each other in a ring: what is made later is reached when it is needed, never while they are made.
 */
import { Absences } from './absences.ts'
import { Admin } from './admin.ts'
import { Arrivals } from './arrivals.ts'
import { Consuming } from './consuming.ts'
import { Deadlines } from './deadlines.ts'
import { Deliveries } from './deliveries.ts'
import { Dispatch } from './dispatch.ts'
import { Ephemeral } from './ephemeral.ts'
import { Found } from './found.ts'
import { Leases } from './leases.ts'
import { Loading } from './loading.ts'
import { Named } from './named.ts'
import { Overload } from './overload.ts'
import type { CoreRules } from './port.ts'
import { Publishing } from './publishing.ts'
import { Queues } from './queues.ts'
import { Reconnecting } from './reconnecting.ts'
import type { Consumer } from './records.ts'
import { Requests } from './requests.ts'
import { Sessions } from './sessions.ts'
import { Settling } from './settling.ts'
import { StoreCalls } from './store-calls.ts'
import { StoreTime } from './store-time.ts'
import { Streams } from './streams.ts'
import { Subscriptions } from './subscriptions.ts'
import { Unheard } from './unheard.ts'
import { Verbs } from './verbs.ts'

/** Those that a step of the core turns to itself; see the top of this file. */
export interface Parts {
  readonly queues: Queues
  readonly deadlines: Deadlines
  readonly calls: StoreCalls
  readonly streams: Streams
  readonly overload: Overload
  readonly reconnecting: Reconnecting
  readonly subscriptions: Subscriptions
  readonly time: StoreTime
  readonly sessions: Sessions
  readonly named: Named
  readonly unheard: Unheard
  readonly leases: Leases
  readonly absences: Absences
  readonly found: Found
  readonly deliveries: Deliveries
  readonly dispatch: Dispatch
  readonly publishing: Publishing
  readonly consuming: Consuming
  readonly loading: Loading
  readonly requests: Requests
  readonly arrivals: Arrivals
}

/** Makes the parts of one core. */
export function createParts(rules: CoreRules): Parts {
  const { durability } = rules
  const deadlines = new Deadlines()
  const calls = new StoreCalls()
  const queues = new Queues(rules)
  const onRoom = (consumer: Consumer): void => dispatch.touch(consumer)
  const streams = new Streams(queues)
  const overload = new Overload(rules.overload)
  const reconnecting = new Reconnecting({ durability, deadlines, calls })
  const subscriptions = new Subscriptions(deadlines, rules.subscriptionsMax, (consumer) => {
    dispatch.changed(consumer)
    reconnecting.changed(consumer)
  })
  const time = new StoreTime({ queues, deadlines, calls, leases: () => leases })
  const sessions: Sessions = new Sessions({
    rules,
    deadlines,
    subscriptions,
    onEnded: (step, session) => {
      deliveries.sessionEnded(step, session)
      requests.sessionEnded(step, session)
      requests.requesterEnded(step, session.jid)
    },
  })
  const named = new Named({
    deadlines,
    calls,
    time,
    leases: () => leases,
    onEnd: (step, subscription) => consuming.end(step, subscription, 'deleted'),
  })
  const unheard: Unheard = new Unheard({
    deadlines,
    calls,
    onApplied: (step, ops, results) => leases.applied(step, ops, results),
  })
  const leases: Leases = new Leases({
    queues,
    calls,
    time,
    unheard,
    onRoom,
    onIdle: (consumer) => {
      subscriptions.forgetIdle(consumer)
      sessions.release(consumer.session)
    },
    onUnreceived: (lease) => deliveries.stall(lease),
    mayBeHeld: (step, lease) => absences.mayBeHeld(step, lease),
    onEphemeralEnd: (step, lease) => ephemeral.ended(step, lease),
  })
  const ephemeral: Ephemeral = new Ephemeral({
    leases,
    deliveries: () => deliveries,
    onWaiting: (consumer) => dispatch.drain(consumer),
  })
  const absences: Absences = new Absences({ deadlines, leases })
  const found = new Found({ deadlines, calls, leases, durability })
  const settling = new Settling({ calls, leases, ephemeral, found, unheard })
  const deliveries: Deliveries = new Deliveries({
    durability,
    deadlines,
    calls,
    leases,
    absences,
    subscriptions,
    sessions,
    onRoom,
    onLost: (step, lost) => ephemeral.lost(step, lost),
    onSettled: (step, { queue, session }, settlements) => settling.settle(step, queue, session.jid, settlements),
  })
  const dispatch: Dispatch = new Dispatch({
    queues,
    deadlines,
    calls,
    time,
    deliveries: () => deliveries,
    subscriptions: () => subscriptions,
    found,
    onCut: (line) => loading.reload(line),
    onDrain: (step, consumer) => ephemeral.drain(step, consumer),
  })
  const publishing = new Publishing({
    rules,
    calls,
    time,
    named,
    ephemeral,
    subscriptions,
    overload,
    dispatch,
    deliveries,
  })
  const consuming: Consuming = new Consuming({ subscriptions, sessions, named, deliveries, reconnecting })
  const loading: Loading = new Loading({ deadlines, calls, time, named, dispatch: () => dispatch, reconnecting, found })
  const requests: Requests = new Requests({ rules, deadlines, subscriptions, sessions, streams, overload, onRoom })
  const admin = new Admin({ durability, calls })
  const verbs = new Verbs({ publishing, settling, consuming, found, deliveries, admin, requests })
  const arrivals = new Arrivals({
    rules,
    queues,
    subscriptions,
    sessions,
    requests,
    deliveries,
    publishing,
    consuming,
    verbs,
    overload,
  })
  return {
    queues,
    deadlines,
    calls,
    streams,
    overload,
    reconnecting,
    subscriptions,
    time,
    sessions,
    named,
    unheard,
    leases,
    absences,
    found,
    deliveries,
    dispatch,
    publishing,
    consuming,
    loading,
    requests,
    arrivals,
  }
}
