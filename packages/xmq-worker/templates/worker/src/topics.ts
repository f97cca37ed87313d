import { defineTopic } from '@xmq/client'
import { z } from 'zod'

/** What the worker takes and what it answers: checked when a message is sent, and again before the handler sees it. */
export const greet = defineTopic('greet', {
  input: z.object({ name: z.string().min(1) }),
  output: z.object({ text: z.string() }),
})
