/**
 * The main job: a real tree is backed up, changed, backed up again, and both moments are restored. What came back is
 * compared with what was there: names, bytes, modes, times, links.
 */
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { AgentEvent, TestAgent } from './agent.ts';
import { seededRandom } from './random.ts';
import { copyBounded, differences, makeOddities, noise, type Snapshot, snapshot } from './tree.ts';

const MiB = 1024 * 1024;
const modules = fileURLToPath(new URL('../../node_modules', import.meta.url));

/** A large file that does not compress: what a change in its middle costs is seen in the bytes sent. */
export const largeBytes = 12 * MiB;

/** Real files and odd ones below a new folder. */
export function makeTree(tree: string, seed: number): void {
  mkdirSync(tree);
  const bounds = { bytesMax: 4 * MiB, filesMax: 250 };
  mkdirSync(join(tree, 'modules'));
  for (const name of ['.bin', 'zod', 'koa', '@koa', 'commander'])
    if (existsSync(join(modules, name))) copyBounded(join(modules, name), join(tree, 'modules', name), bounds);
  mkdirSync(join(tree, 'share'));
  for (const name of ['zoneinfo', 'perl', 'doc', 'misc'])
    if (existsSync(`/usr/share/${name}`))
      copyBounded(`/usr/share/${name}`, join(tree, 'share', name), { bytesMax: 3 * MiB, filesMax: 150 });
  makeOddities(join(tree, 'odd'));
  writeFileSync(join(tree, 'large'), noise(seededRandom(seed), largeBytes));
}

/** Changes of every kind. @returns the plain bytes that are new, those of the large file's change left out */
export function changeTree(tree: string): number {
  const at = (name: string): string => join(tree, name);
  mkdirSync(at('new folder/below'), { recursive: true });
  writeFileSync(at('new folder/below/new'), 'n'.repeat(1000));
  writeFileSync(at('odd/empty file'), 'not empty any more');
  appendFileSync(at('odd/case'), ' and more');
  renameSync(at('modules/zod'), at('modules/renamed'));
  renameSync(at('odd/hard-2'), at('odd/hard-2 renamed'));
  rmSync(at('modules/commander'), { recursive: true, force: true });
  rmSync(at('odd/old')); // 'link' dangles now
  rmSync(at('odd/private'), { recursive: true });
  writeFileSync(at('odd/private'), 'a folder has become a file');
  rmSync(at('odd/dangling'));
  mkdirSync(at('odd/dangling'));
  rmSync(at('odd/upwards'));
  symlinkSync('elsewhere', at('odd/upwards'));
  chmodSync(at('odd/mode-600'), 0o4711 & 0o777);
  utimesSync(at('odd/CASE'), 1_234_567_890, 1_234_567_890.5);
  const large = readFileSync(at('large'));
  writeFileSync(
    at('large'),
    Buffer.concat([large.subarray(0, large.length >> 1), Buffer.from('pushed in'), large.subarray(large.length >> 1)]),
  );
  return ['new folder/below/new', 'odd/empty file', 'odd/case', 'odd/private'].reduce(
    (sum, name) => sum + statSync(at(name)).size,
    0,
  );
}

export interface TwoMoments {
  first: AgentEvent;
  second: AgentEvent;
  newBytes: number;
  moments: { at: number; snapshot: Snapshot }[];
}

/** Backs up `tree`, changes it, and backs it up again. */
export async function backUpTwice(agent: TestAgent, tree: string): Promise<TwoMoments> {
  const first = await agent.succeed('backup', tree);
  const before = { at: Date.now(), snapshot: snapshot(tree) };
  const newBytes = changeTree(tree);
  const second = await agent.succeed('backup', tree);
  return { first, second, newBytes, moments: [before, { at: Date.now(), snapshot: snapshot(tree) }] };
}

/** Restores a tree as of a moment. @returns every way in which it differs from what was there then */
export async function restoreDifferences(
  agent: TestAgent,
  tree: string,
  moment: { at: number; snapshot: Snapshot },
  to: string,
  ...options: string[]
): Promise<string[]> {
  await agent.succeed('restore', tree, '--to', to, '--at', new Date(moment.at).toISOString(), ...options);
  const found = differences(moment.snapshot, snapshot(join(to, basename(tree))));
  rmSync(to, { recursive: true });
  return found;
}
