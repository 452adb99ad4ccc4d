/**
 * The dashboard of the queues, as middleware. Who may see it, and what of it may change anything, is decided by whoever
 * mounts it. The only place that knows bull-board.
 */
import { createBullBoard } from '@bull-board/api';
import { BullMQAdapter } from '@bull-board/api/bullMQAdapter';
import { KoaAdapter } from '@bull-board/koa';
import type { QueueName } from './definitions.ts';
import type { Queues } from './queues.ts';

/** What each queue is for, on its page. */
const descriptions: Record<QueueName, string> = {
  housekeeping: 'Short work: runs that were left, counters, leases',
  deleting: 'Retention, and what it frees: versions, blocks, objects',
  checking: 'Reading and comparing what is stored',
  restoring: 'Staged restores: archives made in the bucket, to be fetched',
};

/**
 * @param options.path where it is mounted
 * @param options.onError told of what failed while a page was made
 */
export function createDashboard(queues: Queues, options: { path: string; onError: (error: Error) => void }) {
  const server = new KoaAdapter();
  server.setBasePath(options.path);
  createBullBoard({
    queues: queues.bullmq.map(
      (queue) => new BullMQAdapter(queue, { description: descriptions[queue.name as QueueName] }),
    ),
    serverAdapter: server,
    options: {
      uiConfig: {
        boardTitle: 'Holdfast jobs',
        hideDocsLink: true,
        // Those of the whole Redis or PostgreSQL, which may serve others too.
        hideRedisDetails: true,
        // A list of every connection to the queue's server, at each poll.
        showWorkers: false,
        pollingInterval: { showSetting: true },
        sortQueues: false,
      },
    },
  });
  server.setErrorHandler((error) => {
    options.onError(error);
    return { status: 500, body: { error: { key: 'ERRORS.INTERNAL_SERVER_ERROR' }, message: 'the log says more' } };
  });
  return server.registerPlugin();
}
