/**
 * A process for tests to kill: `node testing.child.ts postgres|lock FOLDER`. Says on standard output, as one line of
 * JSON, that it holds what it was asked to hold, and then waits for its end.
 */
import { lockFolder } from './folder-lock.ts';
import { startPostgres } from './postgres.ts';

const [what, folder] = [process.argv[2]!, process.argv[3]!];
setInterval(() => {}, 60_000);

if (what === 'postgres') {
  const postgres = await startPostgres({
    folder,
    durable: true,
    createUser: false,
    sharedBuffersMiB: 16,
    connectionsMax: 20,
    log: () => {},
  });
  console.log(JSON.stringify({ connectionString: postgres.connectionString, postgresPid: postgres.pid }));
} else {
  const lock = await lockFolder(folder, () => {});
  lock.describe({ url: 'https://127.0.0.1:1' });
  process.on('SIGTERM', () => {
    lock.describe({ stopping: true });
    console.log(JSON.stringify({ stopping: true }));
    setTimeout(() => {
      lock.release();
      process.exit(0);
    }, 500);
  });
  console.log(JSON.stringify({ locked: true }));
}
