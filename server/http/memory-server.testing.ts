/** A server in a process of its own, so that a test can see how much memory it takes. Run by memory.test.ts. */
import { bytesRoutes } from './bytes-routes.testing.ts';
import { startTestServer } from './testing.ts';

const server = await startTestServer({ routes: bytesRoutes });
let mostBytes = 0;
setInterval(() => {
  mostBytes = Math.max(mostBytes, process.memoryUsage.rss());
}, 10);

process.on('message', (question) => {
  const { heldBytes, windowBytes, bodies, resets, refusals, waiters } = server.deps.budget;
  if (question === 'forget') mostBytes = process.memoryUsage.rss();
  process.send!({ mostBytes, heldBytes, windowBytes, bodies, resets, refusals, waiters });
});
process.on('disconnect', () => process.exit());
process.send!({ origin: server.origin });
