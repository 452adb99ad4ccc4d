/** What somebody restores of others' archives in a day: how it is counted, who is stopped, and who lets them go on. */
import { randomBytes, randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { By } from '../../server/directory/audit/act.ts';
import { begin, end } from '../../server/directory/restores/requests.ts';
import { lockMeter } from '../../server/directory/restores/thresholds/charging.ts';
import { until } from '../../server/http/testing.ts';
import {
  begun,
  closeWorld,
  engine,
  fetched,
  hasEnded,
  holder,
  opened,
  openWorld,
  plan,
  planned,
  setting,
  show,
  text,
  world,
} from './restoring.ts';
import type { Answer, Holder } from './world.ts';

let admin: Holder;
let reviewer: Holder;
const reason = 'a test';
const small = text('small').length;
const all = small + text('umlaut').length + text('no text').length;

beforeAll(async () => {
  await openWorld();
  reviewer = await world.person('Cross Org User Modify', { name: 'reviewer' });
}, 60_000);
afterAll(closeWorld);

let count = 0;
beforeEach(async () => {
  await setting('restoreAlerts.bytesPerDay', null);
  admin = await world.person('Admin Restore', { name: `admin ${++count}` });
});

const ofOthers = (paths: unknown[], who = admin) => planned(paths, { reason }, who);
const statusOf = async (id: number, who = admin) => (await fetched(id, who)).answer.status;
const reviews = async (who = reviewer, query = ''): Promise<Record<string, unknown>[]> =>
  (await world.ask('GET', `/v1/restore-reviews?limit=1000${query}`, { token: who.token })).json.items as never;
const openReview = async (who = admin) =>
  (await reviews()).find(({ asker, state }) => (asker as { id: number }).id === who.user && state !== 'released');
const decide = (id: unknown, decision: string, who = reviewer, headers = {}): Promise<Answer> =>
  world.ask('POST', `/v1/restore-reviews/${id}`, { token: who.token, body: { decision, reason: ' looked ' }, headers });
const charges = () => world.storage.rows('SELECT 1 FROM restore_charges');
const { transaction } = {
  transaction: <T>(work: Parameters<typeof world.storage.database.transaction<T>>[0]) =>
    world.storage.database.transaction(work),
};
const byOf = ({ user, name }: Holder): By => ({
  tenant: world.tenant,
  party: { kind: 'user', id: user, name },
  address: null,
});

/** A restore as it is planned, of as many bytes as one likes. */
async function ofBytes(bytes: number, who = admin): Promise<{ tenant: number; restore: number; attempt: string }> {
  const restore = await ofOthers(['/d/small'], who);
  await world.storage.rows('UPDATE restore_requests SET planned_bytes = $2 WHERE restore_id = $1', [restore, bytes]);
  return { tenant: world.tenant, restore, attempt: randomUUID() };
}
const beginOne = (of: Awaited<ReturnType<typeof ofBytes>>, who = admin) =>
  transaction((tx) => begin(tx, byOf(who), { ...of, permission: 'restore.all' }));
const endOne = (of: Awaited<ReturnType<typeof ofBytes>>, bytes: number, who = admin) =>
  transaction((tx) =>
    end(tx, byOf(who), of, {
      state: 'broken',
      why: 'a test',
      progress: { files: 1, bytes, sentBytes: bytes, leftOut: 0 },
      leftOutFirst: [],
      brokeOffAt: null,
      leaseMs: 60_000,
    }),
  );

test('the last byte that is allowed passes; one more is refused, stops everything, and tells those who look after it', async () => {
  await setting('restoreAlerts.bytesPerDay', all);
  const [first, second, third] = [await ofOthers(['/d']), await ofOthers(['/d/small']), await ofOthers(['/d/small'])];
  const staged = await planned(['/d/small'], { reason, kind: 'staged' }, admin);
  expect(await statusOf(first)).toBe(200);
  const { answer, bytes } = await fetched(second, admin);
  expect([answer.status, JSON.parse(bytes.toString())]).toEqual([
    403,
    expect.objectContaining({ code: 'restores_blocked', restoredBytes: all, bytes: small, thresholdBytes: all }),
  ]);
  expect(await show(second, admin)).toMatchObject({ state: 'planned', tries: 0 });

  const found = await openReview();
  expect(found).toMatchObject({
    asker: { kind: 'user', id: admin.user, name: admin.name },
    state: 'open',
    restore: second,
    user: { id: holder.user, name: holder.name },
    restoredBytes: all,
    askedBytes: small,
    thresholdBytes: all,
    reviewedBy: null,
  });
  // Whatever leads to a restore, also of one's own files.
  const problem = { code: 'restores_blocked', review: found!.id };
  expect((await plan(['/d/small'], { reason }, admin)).json).toMatchObject(problem);
  const own = { device: admin.guid, paths: ['/'] };
  expect((await world.ask('POST', '/v1/restores', { token: admin.token, body: own })).json).toMatchObject(problem);
  expect(await statusOf(third)).toBe(403);
  const { answer: ofStaged, bytes: why } = await fetched(staged, admin);
  expect([ofStaged.status, JSON.parse(why.toString())]).toEqual([403, expect.objectContaining(problem)]);
  // Nobody else.
  expect(await statusOf(await planned(['/d']), holder)).toBe(200);

  const acts = await world.storage.rows<{ action: string; result: string; details: object }>(
    "SELECT action, result, details FROM acts WHERE action = 'restore.block' AND target_id = $1",
    [String(admin.user)],
  );
  expect(acts).toEqual([
    {
      action: 'restore.block',
      result: 'refused',
      details: expect.objectContaining({ review: found!.id, restore: second, bytes: small, thresholdBytes: all }),
    },
  ]);
  const watcher = await world.person('Cross Org Help Desk - No Restore', { name: `watcher ${count}` });
  const alerts = (await world.ask('GET', '/v1/alerts', { token: watcher.token })).json.alerts as { kind: string }[];
  expect(alerts).toEqual([
    expect.objectContaining({
      kind: 'unusual_restores',
      says: expect.stringContaining(`${admin.name} has restored ${all} bytes`),
      toDo: expect.stringContaining(`restore review ${found!.id}`),
      user: { id: holder.user, name: holder.name },
    }),
  ]);

  const released = await decide(found!.id, 'release');
  expect([released.status, released.json]).toEqual([
    200,
    expect.objectContaining({
      state: 'released',
      reason: 'looked',
      reviewedBy: { kind: 'user', id: reviewer.user, name: 'reviewer' },
    }),
  ]);
  expect((await world.ask('GET', '/v1/alerts', { token: watcher.token })).json.alerts).toEqual([]);
  // Counted anew.
  expect(await statusOf(second)).toBe(200);
  expect(await statusOf(await ofOthers(['/d']))).toBe(403);
});

test('whoever takes a part of a file and leaves has restored that part', async () => {
  const bytes = 1_500_000;
  await engine.back({ path: '/mid', content: randomBytes(bytes) });
  await setting('restoreAlerts.bytesPerDay', bytes + 1_000);
  const id = await ofOthers(['/mid']);
  const counted = async () => {
    const [meter] = await world.storage.rows<{ bytes: number }>(
      `SELECT coalesce(sum((hour->>'bytes')::bigint), 0)::int AS bytes FROM restore_meters, jsonb_array_elements(hours) hour
        WHERE asker_kind = 'user' AND asker_id = $1`,
      [admin.user],
    );
    return meter!.bytes;
  };
  const stream = opened(id, admin);
  await begun(id, admin);
  stream.destroy();
  await hasEnded(id, 'broken', admin);
  const { done } = await show(id, admin);
  expect(done).toMatchObject({ files: 0 });
  expect(done.bytes).toBeGreaterThan(done.sentBytes - 1_000);
  expect(await counted()).toBe(done.bytes);
  const since = new Date(Date.now() - 3_600_000).toISOString();
  const path = `/v1/restores/totals?since=${since}&until=${new Date(Date.now() + 60_000).toISOString()}`;
  const totals = (await world.ask('GET', path, { token: admin.token })).json.items as { askedBy: { id: number } }[];
  expect(totals.find(({ askedBy }) => askedBy.id === admin.user)).toMatchObject({ bytes: done.bytes });
  expect(await statusOf(id)).toBe(403);
});

test("one's own archives, and what nobody bounds, count nothing", async () => {
  await setting('restoreAlerts.bytesPerDay', 0);
  expect(await statusOf(await planned(['/d']), holder)).toBe(200);
  const id = await ofOthers(['/d/small']);
  expect(await statusOf(id)).toBe(403);
  await decide((await openReview())!.id, 'release');
  await setting('restoreAlerts.bytesPerDay', -1);
  expect(await statusOf(id)).toBe(200);
  // It is counted all the same, for when there is a bound.
  await setting('restoreAlerts.bytesPerDay', small);
  expect(await statusOf(await ofOthers(['/d/small']))).toBe(403);
});

test.each([
  ['for the first time', false],
  ['after others', true],
])('of two that begin at once, %s, and are too much together one does not begin', async (_, isLater) => {
  await setting('restoreAlerts.bytesPerDay', 100);
  if (isLater) {
    const before = await ofBytes(10);
    await beginOne(before);
    await endOne(before, 0);
  }
  const [one, other] = [await ofBytes(60), await ofBytes(60)];
  let isHeld: (value: unknown) => void;
  const held = new Promise((resolve) => {
    isHeld = resolve;
  });
  let letGo: (value: unknown) => void;
  const gone = new Promise((resolve) => {
    letGo = resolve;
  });
  const first = transaction(async (tx) => {
    // The meter and nothing more, or all of it.
    if (isLater) await lockMeter(tx, { tenant: world.tenant, kind: 'user', id: admin.user });
    else await begin(tx, byOf(admin), { ...one, permission: 'restore.all' });
    isHeld(null);
    await gone;
    if (isLater) await begin(tx, byOf(admin), { ...one, permission: 'restore.all' });
  });
  await held;
  let isOver = false;
  const second = beginOne(other)
    .then(
      () => 'begun',
      (error) => error.code,
    )
    .finally(() => {
      isOver = true;
    });
  // It waits for the meter of whoever asks.
  const waits = async () => {
    const [row] = await world.storage.rows<{ n: number }>(
      "SELECT count(*)::int AS n FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()",
    );
    return row!.n > 0;
  };
  await until(async () => isOver || (await waits()));
  letGo!(null);
  await first;
  expect(await second).toBe('restores_blocked');
  expect((await show(other.restore, admin)).state).toBe('planned');
  // The room that the first gives back is there for the other.
  await endOne(one, 40);
  await beginOne(other);
  await endOne(other, 60);
});

test('what was done takes the place of what was planned, each try for itself', async () => {
  await setting('restoreAlerts.bytesPerDay', 100);
  const one = await ofBytes(90);
  await beginOne(one);
  await endOne(one, 30);
  // Ended a second time, and by a process that knows no better.
  await endOne(one, 90);
  expect(await charges()).toEqual([]);
  const again = { ...one, attempt: randomUUID() };
  await world.storage.rows('UPDATE restore_requests SET planned_bytes = 71 WHERE restore_id = $1', [one.restore]);
  await expect(beginOne(again)).rejects.toMatchObject({ code: 'restores_blocked', restoredBytes: 30 });
  await world.storage.rows('UPDATE restore_requests SET planned_bytes = 70 WHERE restore_id = $1', [one.restore]);
  await beginOne(again);
  // The same, in a transaction whose outcome was not known.
  await beginOne(again);
  // Its process has gone, and with it the word on its end: as far as it was heard of counts.
  await world.storage.rows(
    "UPDATE restore_requests SET done_bytes = 20, seen_at = now() - interval '5 minutes' WHERE restore_id = $1",
    [one.restore],
  );
  const third = { ...one, attempt: randomUUID() };
  await world.storage.rows('UPDATE restore_requests SET planned_bytes = 51 WHERE restore_id = $1', [one.restore]);
  await expect(beginOne(third)).rejects.toMatchObject({ code: 'restores_blocked', restoredBytes: 50 });
  await world.storage.rows('UPDATE restore_requests SET planned_bytes = 50 WHERE restore_id = $1', [one.restore]);
  await beginOne(third);
  await endOne(third, 50);
});

test('a day later it counts no more', async () => {
  await setting('restoreAlerts.bytesPerDay', 100);
  const one = await ofBytes(100);
  await beginOne(one);
  await endOne(one, 100);
  const age = (hours: number) =>
    world.storage.rows(
      `UPDATE restore_meters SET hours = jsonb_build_array(jsonb_build_object('bytes', 100, 'hour',
         floor(extract(epoch FROM now()) / 3600)::bigint - $2::bigint)) WHERE asker_id = $1`,
      [admin.user, hours],
    );
  const other = await ofBytes(100);
  await age(23);
  await expect(beginOne(other)).rejects.toMatchObject({ code: 'restores_blocked' });
  await age(26);
  await beginOne(other);
  await endOne(other, 0);
});

test('what ends after a release was of the count before', async () => {
  await setting('restoreAlerts.bytesPerDay', 100);
  const one = await ofBytes(100);
  await beginOne(one);
  expect(await statusOf(await ofOthers(['/d/small']))).toBe(403);
  await decide((await openReview())!.id, 'release');
  const [two, three] = [await ofBytes(100), await ofBytes(1)];
  await beginOne(two);
  await endOne(one, 0);
  await expect(beginOne(three)).rejects.toMatchObject({ code: 'restores_blocked', restoredBytes: 100 });
});

describe('reviewing', () => {
  async function stopped(who = admin): Promise<number> {
    await setting('restoreAlerts.bytesPerDay', 0);
    expect(await statusOf(await ofOthers(['/d/small'], who), who)).toBe(403);
    return (await openReview(who))!.id as number;
  }

  test('kept, it stays so until somebody releases it, and once released it is over', async () => {
    const id = await stopped();
    expect((await decide(id, 'keep')).json).toMatchObject({ state: 'kept', version: 2 });
    expect((await plan(['/d'], { reason }, admin)).status).toBe(403);
    expect((await decide(id, 'release', reviewer, { 'if-match': '"1"' })).json).toMatchObject({
      code: 'precondition_failed',
      version: 2,
    });
    expect((await decide(id, 'release', reviewer, { 'if-match': '"2"' })).json).toMatchObject({ state: 'released' });
    expect((await decide(id, 'keep')).json).toMatchObject({ code: 'conflict', state: 'released' });
    expect((await plan(['/d'], { reason }, admin)).status).toBe(201);
    const acts = await world.storage.rows<{ decision: string }>(
      "SELECT details->>'decision' AS decision FROM acts WHERE action = 'restore.review' AND target_id = $1 ORDER BY number",
      [String(admin.user)],
    );
    expect(acts.map(({ decision }) => decision)).toEqual(['keep', 'release']);
  });

  test('not by whoever was stopped, nor by their program', async () => {
    const both = await world.person('Customer Cloud Admin', { name: `both ${count}` });
    const id = await stopped(both);
    expect((await decide(id, 'release', both)).json).toMatchObject({ code: 'forbidden' });
    const client = await clientOf(both, ['user.update', 'user.read']);
    expect((await decide(id, 'release', client)).json).toMatchObject({ code: 'forbidden' });
    expect((await decide(id, 'release')).status).toBe(200);
  });

  test('a decision and a reason are needed', async () => {
    const id = await stopped();
    for (const body of [{}, { decision: 'release' }, { decision: 'free', reason }, { decision: 'keep', reason: ' ' }])
      expect((await world.ask('POST', `/v1/restore-reviews/${id}`, { token: reviewer.token, body })).status).toBe(400);
    const long = (length: number) =>
      world.ask('POST', `/v1/restore-reviews/${id}`, {
        token: reviewer.token,
        body: { decision: 'keep', reason: 'x'.repeat(length) },
      });
    expect([(await long(501)).status, (await long(500)).status]).toEqual([400, 200]);
  });

  test('a list shows those whom its reader reaches', async () => {
    const id = await stopped();
    const sibling = await world.person('User Modify', {
      name: `sibling ${count}`,
      organization: world.places.sibling.organization,
      scope: 'tree',
    });
    const own = await world.person('User Modify', { name: `own ${count}`, scope: 'tree' });
    const ids = async (who: Holder, query = '') => (await reviews(who, query)).map((each) => each.id);
    expect(await ids(own, '&state=open')).toContain(id);
    expect(await ids(own, '&state=kept')).not.toContain(id);
    expect(await ids(sibling)).not.toContain(id);
    expect((await decide(id, 'keep', sibling)).status).toBe(404);
  });
});

/** An API client whose secret somebody has, signed in. */
async function clientOf(maker: Holder, permissions: string[]): Promise<Holder & { client: unknown }> {
  const body = {
    name: 'program',
    organization: world.places.own.organization,
    permissions,
    scope: 'tree',
    expiresAt: new Date(Date.now() + 86_400_000).toISOString(),
  };
  return signedIn(maker, await world.ask('POST', '/v1/clients', { token: maker.token, body }));
}

async function signedIn(who: Holder, { json, text: told }: Answer): Promise<Holder & { client: unknown }> {
  const { id, clientId, clientSecret } = json;
  if (typeof clientSecret !== 'string') throw new Error(told);
  const body = { grant_type: 'client_credentials', client_id: clientId, client_secret: clientSecret };
  const signed = await world.ask('POST', '/v1/clients/token', { body });
  return { ...who, token: signed.json.access_token as string, client: id };
}

test('what their programs restore counts for whoever has the secret', async () => {
  const maker = await world.person('Customer Cloud Admin', { name: `maker ${count}` });
  await setting('restoreAlerts.bytesPerDay', small);
  expect(await statusOf(await ofOthers(['/d/small'], maker), maker)).toBe(200);
  const client = await clientOf(maker, ['restore.all', 'restore.limited']);
  expect(await statusOf(await ofOthers(['/d/small'], client), client)).toBe(403);
  expect((await plan(['/d'], { reason }, maker)).json).toMatchObject({ code: 'restores_blocked' });
  expect(await openReview(maker)).toMatchObject({ asker: { kind: 'user', id: maker.user, name: maker.name } });

  // Whoever gives it another secret knows that one.
  const other = await world.person('Customer Cloud Admin', { name: `other ${count}` });
  const rotated = await world.ask('POST', `/v1/clients/${client.client}/secret`, { token: other.token, body: {} });
  const theirs = await signedIn(other, rotated);
  expect(await statusOf(await ofOthers(['/d/small'], theirs), theirs)).toBe(200);
  expect(await statusOf(await ofOthers(['/d/small'], other), other)).toBe(403);
});
