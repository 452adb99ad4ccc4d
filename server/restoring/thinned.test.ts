/** Restores as of a moment whose versions retention has thinned out: planned, counted, left out and named. */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { onlyPolicy } from '../../storage/archive/retention/policies.ts';
import { pruneArchive } from '../../storage/archive/retention/prune.ts';
import { defaultRetention } from '../../storage/archive/retention/retention.ts';
import { planRestore } from './plan.ts';
import { collect, damage, makeWorld, readZip, type World } from './testing.ts';
import { reportedMax } from './types.ts';

let folder: string;
let world: World;
/** The moment after the first backup. */
const seq = 3;

const text = (name: string): Buffer => Buffer.from(`content of ${name}`);

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'thinned-'));
  world = await makeWorld(folder);
  const { storage, ref } = world;
  await world.back(...['a', 'b', 'kept'].map((name) => ({ path: `/d/${name}`, content: text(name) })));
  await world.back(...['a', 'b', 'new'].map((name) => ({ path: `/d/${name}`, content: text(`${name} 2`) })));
  // To noon of a day a month ago, so that all of it is of one day.
  const dayMs = 86_400_000;
  const agedMs = 30 * dayMs + (Date.now() % dayMs) - dayMs / 2;
  await storage.rows(`UPDATE versions SET committed_at = committed_at - interval '${agedMs} ms'`);
  const none = async () => {};
  const deps = { readPolicies: async () => onlyPolicy(defaultRetention), assertMayDelete: none, assertStillHeld() {} };
  expect(await pruneArchive(storage, ref, deps)).toMatchObject({ versions: 2, refused: null });
  // Beyond it retention has nothing to take, and everything is as if it was committed just now.
  const [hashes] = await world.back({ path: '/d/b', content: text('b 3') });
  await damage(world, hashes![0]!, 'flip');
}, 60_000);
afterAll(async () => {
  await world?.close();
  await rm(folder, { recursive: true, force: true });
});

const planned = (paths: string[], moment: { at: Date | null } | { seq: number } = { seq }) =>
  planRestore(world.storage, world.ref, { paths: paths.map((path) => Buffer.from(path)), moment, deleted: false });

async function assembled(paths: string[]) {
  await planned(paths);
  const selection = { paths: paths.map((path) => Buffer.from(path)), seq, deleted: false };
  const { bytes, report } = await collect(world.assemble(selection));
  return { entries: readZip(bytes), report };
}

test('a plan counts them apart, and nowhere else', async () => {
  expect(await planned(['/d'])).toMatchObject({ files: 1, bytes: text('kept').length, gone: 0, thinned: 2 });
  expect(await planned(['/d/a'])).toMatchObject({ files: 0, thinned: 1, missingPaths: [] });
  expect(await planned(['/d'], { at: null })).toMatchObject({ files: 4, thinned: 0 });
});

test('a zip does not hold them, and names each with the first moments that have it', async () => {
  const { entries, report } = await assembled(['/d']);
  expect([...entries.keys()]).toEqual(['d/kept', 'RESTORE-INCOMPLETE.txt']);
  expect(report.counts).toMatchObject({ files: 1, leftOut: 2, missingPaths: 0 });
  expect(report.leftOut).toEqual(
    ['/d/a', '/d/b'].map((path) => ({ path: Buffer.from(path), reason: 'version_thinned' })),
  );
  const lines = entries.get('RESTORE-INCOMPLETE.txt')!.content.toString().split('\n');
  const says = 'retention keeps no version of it from before the moment asked for';
  expect(lines.slice(3, -1).map((line) => line.replace(/^ {4}\S+Z /, '    TIME '))).toEqual([
    `/d/a: ${says}`,
    `    TIME (version 4, ${text('a 2').length} bytes)`,
    `/d/b: ${says}`,
    `    TIME (version 5, ${text('b 2').length} bytes)`,
    `    TIME (version 7, ${text('b 3').length} bytes)`,
  ]);
});

test('chosen by itself it is named as that, and not as a path where nothing was', async () => {
  const { entries, report } = await assembled(['/d/a', '/d/never']);
  expect(report.counts).toMatchObject({ files: 0, leftOut: 1, missingPaths: 1 });
  const told = entries.get('RESTORE-INCOMPLETE.txt')!.content.toString();
  expect(told).toMatch(/^\/d\/a: retention keeps no version of it/m);
  expect(told).toMatch(/^\/d\/never: there was nothing at this path/m);
});

test('however much was thinned out, what is damaged is reported, and told with the moments that are whole', async () => {
  await mkdir(join(folder, 'many'));
  const small = await makeWorld(join(folder, 'many'));
  try {
    const files = Array.from({ length: reportedMax + 50 }, (_, i) => `/d/${i}`);
    await small.back(...files.map((path) => ({ path, content: text('x') })));
    await small.back({ path: '/z', content: text('whole') });
    const [damaged] = await small.back({ path: '/z', content: text('damaged') });
    const selection = await small.selection(['/']);
    await small.storage.rows(`DELETE FROM versions WHERE file_id IN (SELECT file_id FROM files WHERE name <> 'z')`);
    await damage(small, damaged![0]!, 'remove');
    const { bytes, report } = await collect(small.assemble(selection));
    expect(report.counts).toMatchObject({ leftOut: files.length + 1 });
    expect(report.leftOut).toHaveLength(reportedMax / 2 + 1);
    expect(report.leftOut.at(-1)).toEqual({ path: Buffer.from('/z'), reason: 'content_damaged' });
    const told = readZip(bytes).get('RESTORE-INCOMPLETE.txt')!.content.toString();
    expect(told).toMatch(/^\/z: its content is damaged in the store\n {4}\S+ \(version \d+, 16 bytes\)$/m);
  } finally {
    await small.close();
  }
}, 60_000);
