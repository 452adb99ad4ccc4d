/**
 * The real server with short times, to be killed while it deletes: `node quick-server.child.ts all|api|worker`. `all` and
 * `api` bring their PostgreSQL along; a worker is told where one is. What an operator may set so short and what nobody
 * may is shortened here, in the defaults that the server's own code reads: nothing else differs from `npm start`.
 */
import { loadConfig } from '../../server/config.ts';
import { jobDefinitions } from '../../server/jobs/definitions.ts';
import { listenForStop } from '../../server/signals.ts';
import { fenceDefaults } from '../../storage/archive/checking/fence.ts';
import { storageDefaults } from '../../storage/storage.ts';

const claimWindowMs = 2_500;

/** How often each job runs, in ms. The others keep their time. */
const everyMs: Partial<Record<keyof typeof jobDefinitions, number>> = {
  prune: 600,
  reclaim: 700,
  settle: 1_100,
  compact: 800,
  'delete-objects': 900,
  'fold-usage': 1_000,
  'forget-leases': 1_500,
  'compare-bucket': 2_300,
  verify: 2_000,
  recount: 3_000,
};
for (const [name, each] of Object.entries(everyMs))
  Object.assign(jobDefinitions[name as keyof typeof jobDefinitions], { everyMs: each });

// A beat is a quarter of what makes the fence stale on a machine that is busy with other things.
Object.assign(fenceDefaults, { beatMs: 1_000, beatsBeforeDeleting: 2 });
// Hours of deleting pass here in minutes, and nobody is there to review an alert about so much of it.
Object.assign(storageDefaults, { expiryVersionsMin: 1_000_000, suspiciousFilesMin: 1_000_000 });
// A margin shorter than a transaction costs a sender a repetition now and then, and never a block that is acknowledged.
Object.assign(storageDefaults, { freedMarginMs: 300, restoreLeaseMs: 3_000 });

const role = process.argv[2] as 'all' | 'api' | 'worker';
const roles = { api: role !== 'worker', worker: role !== 'api' };
const config = {
  ...loadConfig({ embedded: roles.api, needs: ['database', 'objects'] }),
  claimWindowMs,
  uploadLeaseMs: 3_000,
  objectDeleteDelayMs: 1_000,
  verifyEveryMs: 5_000,
  // Kills are to hit work, and not rests.
  backgroundPercent: 100,
};
const stop = listenForStop({ onImpatience: () => {}, withParent: true });
const { serve } = await import('../../server/commands/serve.ts');
process.exitCode = await serve(config, roles, stop, console.log);
process.exit();
