/** The embedded server in a process of its own, as the other servers are. */
import { startServer } from '../../test/servers/dist/index.js'
import { serve } from './child.mjs'

serve(async ({ accounts, producerBytes }) => {
  const { host, c2sPort, componentPort, domain, secret } = await startServer('embedded', {
    accounts,
    ...(producerBytes === undefined ? {} : { producerBytes }),
  })
  return { ready: { host, c2sPort, componentPort, domain, secret } }
})
