/** The moment of a plan: how long it is kept, how many there may be, and that counting stops when it is told to. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { streamVersions } from '../../storage/archive/reading/read-tree.ts';
import type { Storage } from '../../storage/storage.ts';
import { keepPlanned, plannedMomentsMax, planRestore } from './plan.ts';
import { rootsOf, walkSelection } from './selection.ts';
import { type Entry, makeWorld, type World } from './testing.ts';

let folder: string;
let world: World;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'plan-'));
  world = await makeWorld(folder);
});
afterEach(async () => {
  await world?.close();
  await rm(folder, { recursive: true, force: true });
});

const content = Buffer.from('x');
const plan = (moment: { at: null } | { seq: number }, signal?: AbortSignal, deleted = false) =>
  planRestore(world.storage, world.ref, { paths: [Buffer.from('/')], moment, deleted }, signal);

/** How long leases last, in seconds, by seq. */
async function leases(): Promise<number[]> {
  const rows = await world.storage.rows<{ seconds: number }>(
    'SELECT extract(epoch FROM lease_until - now())::int AS seconds FROM restores ORDER BY seq',
  );
  return rows.map(({ seconds }) => seconds);
}

/** The same storage, which tells the names of statements before it asks them. */
function telling(tell: (name: string) => void): Storage {
  const { database } = world.storage;
  const query: typeof database.query = (statement, values) => {
    tell(statement.name);
    return database.query(statement, values);
  };
  const told = new Proxy(database, { get: (of, name) => (name === 'query' ? query : Reflect.get(of, name).bind(of)) });
  return { ...world.storage, database: told };
}

test('a plan keeps its moment for minutes, and for as long as restores do when it is wanted', async () => {
  await world.back({ path: '/x', content });
  await expect(plan({ at: null }, AbortSignal.abort(new Error('too long')))).rejects.toThrow('too long');
  const [short] = await leases();
  expect(short).toBeLessThanOrEqual(120);
  const { seq } = await plan({ at: null });
  expect((await leases())[0]).toBeLessThanOrEqual(120);
  const { database, settings } = world.storage;
  await keepPlanned(database, world.ref, seq, settings.restoreLeaseMs);
  const [long] = await leases();
  expect(long).toBeGreaterThan(settings.restoreLeaseMs / 1_000 - 300);
  await world.storage.rows(`UPDATE restores SET lease_until = now() - interval '1 s'`);
  const late = keepPlanned(database, world.ref, seq, settings.restoreLeaseMs);
  await expect(late).rejects.toMatchObject({ code: 'moment_lapsed' });
});

test('plans take half of the moments that may be kept, share those that are, and leave the rest to others', async () => {
  await world.back({ path: '/x', content });
  const { seq } = await plan({ at: null });
  const { vault, archive } = world.ref;
  const fill = (count: number) =>
    world.storage.rows(
      `INSERT INTO restores (vault_id, archive_id, seq, lease_until)
       SELECT $1, $2, 1000 + i, now() + interval '1 h' FROM generate_series(1, $3) i ON CONFLICT DO NOTHING`,
      [vault, archive, count],
    );
  await fill(plannedMomentsMax - 2);
  await world.back({ path: '/x', content: Buffer.from('y') });
  const second = await plan({ at: null });
  expect(second.seq).toBeGreaterThan(seq);
  await expect(plan({ seq: 0 })).rejects.toMatchObject({ code: 'too_many_requests' });
  expect(await plan({ seq })).toMatchObject({ files: 1 });
  const query = { path: Buffer.from('/'), at: null, seq: 0, after: null, deleted: false };
  expect((await Array.fromAsync(streamVersions(world.storage, world.ref, query))).at(-1)).toEqual({ frame: 'end' });
});

test('a moment whose lease has ended between two paths is not taken anew', async () => {
  await world.back({ path: '/a', content }, { path: '/b', content });
  const { seq } = await plan({ at: null });
  const roots = rootsOf([Buffer.from('/a'), Buffer.from('/b')]);
  const reading = (async () => {
    for await (const _ of walkSelection(world.storage, world.ref, { roots, seq, deleted: false }))
      await world.storage.rows(`UPDATE restores SET lease_until = now() - interval '1 s'`);
  })();
  await expect(reading).rejects.toMatchObject({ code: 'moment_lapsed' });
  expect((await leases())[0]).toBeLessThan(0);
});

test('counting stops when it is told to, among the histories of deleted files and among names that do not show', async () => {
  const files = Array.from({ length: 2_500 }, (_, i): Entry => ({ path: `/d/${i}`, content }));
  await world.back(...files);
  await world.remove(...files.map(({ path }) => String(path)));
  for (const [name, deleted, atMost] of [
    ['versions.history', true, 4],
    ['files.listFolders', false, 1],
  ] as const) {
    const stop = new AbortController();
    let asked = 0;
    const storage = telling((each) => {
      if (each !== name) return;
      asked++;
      stop.abort(new Error('too long'));
    });
    const selection = { paths: [Buffer.from('/')], moment: { at: null }, deleted };
    await expect(planRestore(storage, world.ref, selection, stop.signal)).rejects.toThrow('too long');
    expect(asked).toBeGreaterThan(0);
    expect(asked).toBeLessThanOrEqual(atMost);
  }
});
