/**
 * A part of a crowd: restores the same tree as many times as it is told, all at once, each as a device or a person of its
 * own. Says when it is ready, begins when the file `go` is there, and says of each how it went.
 */
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { setPriority } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, defaultRetryPolicy } from '../agent/client/index.ts';
import { collectEarly } from '../agent/files/memory.ts';
import { restore } from '../agent/restore/restore.ts';
import { keyringOf, readRegistration } from '../agent/state/registration.ts';
import { type ApiClient, type CrowdEnd, type CrowdTask, WebClient } from './restoring-world.ts';

type Member = () => Promise<Omit<CrowdEnd, 'endMs'>>;

collectEarly();
// A hundred would have machines of their own: here they have what the server, and those that back up, leave of this one.
setPriority(19);
const task = JSON.parse(readFileSync(process.argv[2]!, 'utf8')) as CrowdTask;
const retry = { ...defaultRetryPolicy, giveUpAfterMs: 30 * 60_000 };
let startedAt = 0;

function agent(home: string, index: number): Member {
  const registration = readRegistration(home)!;
  return async () => {
    const client = connect({ ...registration, connections: 2, retry });
    const to = join(task.to, String(index));
    mkdirSync(to, { recursive: true });
    let firstMs = 0;
    try {
      const { counts } = await restore({
        client,
        keys: keyringOf(registration),
        archive: task.archive,
        vault: registration.vault,
        path: Buffer.from(task.path),
        to,
        onProgress: ({ bytesFetched }) => {
          if (bytesFetched > 0) firstMs ||= performance.now() - startedAt;
        },
      });
      if (counts.bytesRestored !== task.bytes) throw new Error(`${counts.bytesRestored} bytes were restored`);
      return { firstMs, bytes: task.bytes };
    } finally {
      client.destroy();
      rmSync(to, { recursive: true, force: true });
    }
  };
}

async function browser(apiClient: ApiClient): Promise<Member> {
  const web = new WebClient(task.url, task.certificateSha256, retry);
  await web.signInAsClient(apiClient);
  const id = await web.plan({ device: task.device, path: task.path, format: 'zip' });
  return async () => {
    let firstMs = 0;
    let bytes = 0;
    const stall = new AbortController();
    try {
      await web.fetch(id, async (more) => {
        bytes += more;
        firstMs ||= performance.now() - startedAt;
        if (task.stallSeconds > 0) {
          await sleep(task.stallSeconds * 1000);
          throw stall;
        }
      });
      await web.assertWhole(id, task.bytes);
    } catch (error) {
      if (error !== stall) throw error;
    } finally {
      web.close();
    }
    return { firstMs, bytes: task.stallSeconds > 0 ? bytes : task.bytes };
  };
}

const members = task.agents.map(agent);
for (const each of task.browsers) members.push(await browser(each));
console.log(JSON.stringify({ ready: members.length }));
while (!existsSync(task.go)) await sleep(20);
startedAt = performance.now();
await Promise.all(
  members.map(async (member) => {
    const end = await member();
    console.log(JSON.stringify({ end: { ...end, endMs: performance.now() - startedAt } satisfies CrowdEnd }));
  }),
);
process.exit(0);
