/** The embedded server in a process of its own, as the other servers are. */
import { startServer } from '../../test/servers/dist/index.js'
import { serve } from './child.mjs'

serve(async ({ accounts }) => {
  const { host, c2sPort, componentPort, domain, secret } = await startServer('embedded', { accounts })
  return { ready: { host, c2sPort, componentPort, domain, secret } }
})
