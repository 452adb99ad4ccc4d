/** The real server without its worker, which runs as a process of its own beside it: PostgreSQL comes along as with `npm start`. */
import { loadConfig } from '../../server/config.ts';
import { listenForStop } from '../../server/signals.ts';

const config = loadConfig({ embedded: true, needs: ['database', 'objects'] });
const stop = listenForStop({ onImpatience: () => {}, withParent: true });
const { serve } = await import('../../server/commands/serve.ts');
process.exitCode = await serve(config, { api: true, worker: false }, stop, console.log);
process.exit();
