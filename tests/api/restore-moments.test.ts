/** How many moments of an archive somebody holds by planning restores of it, and for how long. */
import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { heldMomentsMax } from '../../server/directory/restores/thresholds/moments.ts';
import { closeWorld, engine, holder, openWorld, plan, planned, setting, world } from './restoring.ts';
import type { Holder } from './world.ts';

let admin: Holder;
const reason = 'a test';

beforeAll(openWorld, 60_000);
afterAll(closeWorld);

let count = 0;
beforeEach(async () => {
  admin = await world.person('Admin Restore', { name: `admin ${++count}` });
});

const ofOthers = (paths: unknown[]) => planned(paths, { reason }, admin);
const leaseOf = async (seq: number): Promise<number> => {
  const [row] = await world.storage.rows<{ seconds: number }>(
    'SELECT extract(epoch FROM lease_until - now())::int AS seconds FROM restores WHERE vault_id = $1 AND seq = $2',
    [engine.ref.vault, seq],
  );
  return row!.seconds;
};

test('one asker has twenty of an archive kept, shares them, and is refused another', async () => {
  const id = await ofOthers(['/d']);
  const [{ seq }] = (await world.storage.rows<{ seq: number }>(
    'SELECT seq FROM restore_requests WHERE restore_id = $1',
    [id],
  )) as [{ seq: number }];
  const others = (count: number) =>
    world.storage.rows(
      `INSERT INTO restore_requests (tenant_id, user_id, guid, vault_id, archive_id, asker_kind, asker_id, asker_name, kind, format,
              selection, seq, permission, planned_files, planned_folders, planned_links, planned_bytes, planned_damaged,
              planned_gone, planned_missing, lapses_at)
       SELECT tenant_id, user_id, guid, vault_id, archive_id, asker_kind, asker_id, asker_name, kind, format, selection,
              1000 + i, permission, 0, 0, 0, 0, 0, 0, 0, now() + interval '1 hour'
         FROM restore_requests, generate_series(1, $2) i WHERE restore_id = $1`,
      [id, count],
    );
  // With the one that there is, one less than there may be.
  await others(heldMomentsMax - 2);
  const before = seq - 1;
  expect((await plan(['/d'], { reason, seq: before }, admin)).status).toBe(201);
  expect(await leaseOf(before)).toBeGreaterThan(3_600);
  const refused = await plan(['/d'], { reason, seq: before - 1 }, admin);
  expect([refused.status, refused.json]).toEqual([
    429,
    expect.objectContaining({ code: 'too_many_requests', momentsMax: heldMomentsMax }),
  ]);
  expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(3_000);
  // What was refused is kept for as long as counting needs it.
  expect(await leaseOf(before - 1)).toBeLessThanOrEqual(120);
  expect((await plan(['/d'], { reason }, admin)).status).toBe(201);
  // Nobody else is in the way, and what has lapsed is neither.
  expect((await plan(['/d'], { seq: before - 1 }, holder)).status).toBe(201);
  await world.storage.rows('UPDATE restore_requests SET lapses_at = now() WHERE asker_id = $1 AND seq = 1001', [
    admin.user,
  ]);
  expect((await plan(['/d'], { reason, seq: before - 1 }, admin)).status).toBe(201);
});

test('of what is staged a moment counts as long as its lease may last, and not as long as what was made is kept', async () => {
  const { restoreLeaseMs } = world.storage.settings;
  const { rows } = world.storage;
  const id = await ofOthers(['/d']);
  const [{ seq }] = (await rows<{ seq: number }>('SELECT seq FROM restore_requests WHERE restore_id = $1', [id])) as [
    { seq: number },
  ];
  await rows(
    `INSERT INTO restore_requests (tenant_id, user_id, guid, vault_id, archive_id, asker_kind, asker_id, asker_name, kind, format,
            selection, seq, permission, planned_files, planned_folders, planned_links, planned_bytes, planned_damaged,
            planned_gone, planned_missing, lapses_at, state, begun_at, ended_at)
     SELECT tenant_id, user_id, guid, vault_id, archive_id, asker_kind, asker_id, asker_name, 'staged', format, selection,
            1000 + i, permission, 0, 0, 0, 0, 0, 0, 0, now() + interval '7 days', 'completed', now(), now()
       FROM restore_requests, generate_series(1, $2) i WHERE restore_id = $1`,
    [id, heldMomentsMax - 1],
  );
  const ended = (agoMs: number) =>
    rows(
      `UPDATE restore_requests SET ended_at = now() - $2 * interval '1 ms' WHERE asker_id = $1 AND kind = 'staged'`,
      [admin.user, agoMs],
    );
  const another = async () => (await plan(['/d'], { reason, seq: seq - 1 }, admin)).status;
  expect(await another()).toBe(429);
  await ended(restoreLeaseMs - 60_000);
  const refused = await plan(['/d'], { reason, seq: seq - 1 }, admin);
  expect(refused.status).toBe(429);
  expect(Number(refused.headers.get('retry-after'))).toBeLessThanOrEqual(60);
  // Cancelled, one is held for no longer than it was.
  const [one] = await rows<{ id: number }>(
    `SELECT restore_id AS id FROM restore_requests WHERE asker_id = $1 AND kind = 'staged' LIMIT 1`,
    [admin.user],
  );
  const cancelled = await world.ask('POST', `/v1/restores/${one!.id}/cancel`, { token: admin.token });
  expect(cancelled.status).toBe(200);
  expect(Date.parse(cancelled.json.lapsesAt as string)).toBeLessThanOrEqual(Date.now() + 60_000);
  expect(await another()).toBe(429);
  await ended(restoreLeaseMs + 1_000);
  expect(await another()).toBe(201);
});

test('what is too much keeps no moment for a day', async () => {
  const limited = await world.person('Admin Restore Limited', { name: `limited ${count}` });
  await world.storage.rows('DELETE FROM restores');
  await setting('webRestore.administratorBytesMax', 1);
  expect((await plan(['/d'], { reason }, limited)).status).toBe(403);
  const rows = await world.storage.rows<{ seconds: number }>(
    'SELECT extract(epoch FROM lease_until - now())::int AS seconds FROM restores',
  );
  expect(rows.filter(({ seconds }) => seconds > 120)).toEqual([]);
  expect(rows.length).toBe(1);
  await setting('webRestore.administratorBytesMax', null);
});
