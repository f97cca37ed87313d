/** What this worker understands. Producers import it: a wrong payload is then a compile error, in their editor. */
import { defineTopic } from '@xmq/client'
import { z } from 'zod'

const drink = z.enum(['espresso', 'flat white', 'filter'])

/** An order to prepare. Nobody waits for it. */
export const orderPlaced = defineTopic('orders.placed', {
  input: z.object({ number: z.int().positive(), drink, cups: z.int().min(1).max(12) }),
})

/** A question that is answered at once. */
export const priceOf = defineTopic('prices.get', {
  input: z.object({ drink, cups: z.int().min(1).max(12) }),
  output: z.object({ cents: z.int() }),
})
