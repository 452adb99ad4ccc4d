/** Staged restores over HTTP, as they are fetched: in ranges, with links, by whoever may by then. */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { stageOne } from '../../server/directory/restores/staging/stage-due.ts';
import { h2, until } from '../../server/http/testing.ts';
import { readZip } from '../../server/restoring/testing.ts';
import { compareBucket } from '../../storage/archive/checking/compare-bucket.ts';
import { actsOf, big, closed, closeWorld, fetched, holder, opened, planned, show, text, world } from './restoring.ts';
import {
  clean,
  expectNoFaults,
  fence,
  getLink,
  link,
  linkTo,
  never,
  objectsOf,
  openStagingWorld,
  parts,
  problemOf,
  range,
  sql,
  staged,
  stagedRows,
  stagePlanned,
} from './staging.ts';
import type { Holder } from './world.ts';

beforeAll(openStagingWorld, 60_000);
afterAll(closeWorld);
expectNoFaults();

/** Asked again, and refused: before that a reader may have all of it. */
const refused = ({ user }: Holder) =>
  until(
    async () => (await sql(`SELECT 1 FROM acts WHERE action = 'request.refused' AND party_id = $1`, [user])).length > 0,
  );

describe('what is staged', () => {
  let id: number;
  let whole: Buffer;

  beforeAll(async () => {
    id = await staged(['/d', '/big']);
    whole = (await fetched(id)).bytes;
  });

  test('is the same zip as a streamed one, in the history as such', async () => {
    const streamed = await fetched(await planned(['/d', '/big'], { seq: (await show(id)).seq }));
    expect(whole.equals(streamed.bytes)).toBe(true);
    expect([...readZip(whole).keys()]).toContain('big');
    expect(await show(id)).toMatchObject({
      kind: 'staged',
      state: 'completed',
      tries: 1,
      done: { files: 4, leftOut: 0, sentBytes: whole.byteLength },
      staged: { percent: 100, length: whole.byteLength, waitsFor: null },
    });
    expect((await actsOf(id)).map(({ action }) => action)).toEqual([
      'restore.plan',
      'restore.begin',
      'key.unseal',
      'restore.end',
      'restore.fetch',
    ]);
  });

  test('says its length, that it has ranges, and a strong ETag', async () => {
    const { answer } = await fetched(id);
    const etag = answer.headers.get('etag')!;
    expect(etag).toMatch(/^"[0-9a-f-]{36}-\d+"$/);
    expect(
      Object.fromEntries(
        ['content-length', 'accept-ranges', 'content-type', 'cache-control', 'referrer-policy'].map((name) => [
          name,
          answer.headers.get(name),
        ]),
      ),
    ).toEqual({
      'content-length': String(whole.byteLength),
      'accept-ranges': 'bytes',
      'content-type': 'application/zip',
      'cache-control': 'no-store',
      'referrer-policy': 'no-referrer',
    });
    const head = await fetched(id, holder, { method: 'HEAD', ...range('bytes=0-0') });
    expect([head.answer.status, head.bytes.byteLength, head.answer.headers.get('content-length')]).toEqual([
      200,
      0,
      String(whole.byteLength),
    ]);
    const none = await fetched(id, holder, { headers: { 'if-none-match': etag } });
    expect([none.answer.status, none.answer.headers.get('etag')]).toEqual([304, etag]);
    expect((await fetched(id, holder, { headers: { 'if-none-match': '"other"' } })).answer.status).toBe(200);
  });

  const frame = 65_536;
  test.each<[header: string, from: number, to: number]>([
    ['bytes=0-0', 0, 1],
    ['bytes=-1', -1, 0],
    ['bytes=-5', -5, 0],
    ['bytes=0-', 0, 0],
    ['bytes=-99999999999', 0, 0],
    [`bytes=${frame - 1}-${frame}`, frame - 1, frame + 1],
    [`bytes=${4 * frame - 1}-${8 * frame}`, 4 * frame - 1, 8 * frame + 1],
    ['bytes=1000-999999999999', 1000, 0],
  ])('%s', async (header, from, to) => {
    const wanted = to > 0 ? whole.subarray(from, to) : whole.subarray(from);
    const { answer, bytes } = await fetched(id, holder, range(header));
    const first = from < 0 ? whole.byteLength + from : from;
    expect([answer.status, answer.headers.get('content-range'), answer.headers.get('content-length')]).toEqual([
      206,
      `bytes ${first}-${first + wanted.byteLength - 1}/${whole.byteLength}`,
      String(wanted.byteLength),
    ]);
    expect(bytes.equals(wanted)).toBe(true);
  });

  test('the last byte is there, and one past it is 416', async () => {
    const last = whole.byteLength - 1;
    const { bytes } = await fetched(id, holder, range(`bytes=${last}-`));
    expect(bytes.equals(whole.subarray(last))).toBe(true);
    for (const header of [`bytes=${last + 1}-`, 'bytes=-0']) {
      const past = await fetched(id, holder, range(header));
      expect([past.answer.status, past.answer.headers.get('content-range'), past.answer.headers.get('etag')]).toEqual([
        416,
        `bytes */${whole.byteLength}`,
        null,
      ]);
    }
  });

  test.each(['bytes=5-2', 'bytes=a-b', 'bytes=-', 'lines=1-2', 'bytes=0-1,4-5'])(
    'of %s all is sent',
    async (header) => {
      const { answer, bytes } = await fetched(id, holder, range(header));
      expect([answer.status, bytes.equals(whole)]).toEqual([200, true]);
    },
  );

  test('If-Range: the part of the same try, all of another', async () => {
    const etag = (await fetched(id, holder, range('bytes=0-0'))).answer.headers.get('etag')!;
    const same = await fetched(id, holder, range('bytes=3-5', { 'if-range': etag }));
    expect([same.answer.status, same.bytes.equals(whole.subarray(3, 6))]).toEqual([206, true]);
    for (const other of ['"old"', `W/${etag}`, 'Sun, 06 Nov 1994 08:49:37 GMT']) {
      const all = await fetched(id, holder, range('bytes=3-5', { 'if-range': other }));
      expect([all.answer.status, all.bytes.byteLength]).toEqual([200, whole.byteLength]);
    }
  });

  test('lies sealed in the bucket, where comparing the bucket leaves it alone', async () => {
    const keys = await objectsOf(id);
    expect(keys.length).toBeGreaterThan(10);
    for (const each of keys) {
      const pieces: Uint8Array[] = [];
      for await (const piece of (await world.storage.objects.get(each)).stream) pieces.push(piece);
      const bytes = Buffer.concat(pieces);
      expect(bytes.includes(big.subarray(100_000, 100_032))).toBe(false);
      expect(bytes.includes(Buffer.from('PK'.concat('\u0003\u0004')))).toBe(false);
    }
    expect(await compareBucket(world.storage, fence)).toMatchObject({ orphansDeleted: 0, strange: 0, missing: 0 });
    expect(await objectsOf(id)).toEqual(keys);
    expect(await clean()).toEqual({ ended: 0, deleted: 0, orphans: 0, forgotten: 0 });
  });

  test('is for whoever planned it', async () => {
    const other = await world.person('Admin Restore', { name: 'other-admin' });
    const { answer, bytes } = await fetched(id, other);
    expect([answer.status, problemOf(bytes).detail]).toEqual([409, expect.stringMatching(/whoever planned it/)]);
    expect((await link(id, other)).status).toBe(409);
  });

  test('counts what was taken', async () => {
    const before = (await show(id)) as unknown as { staged: { fetchedBytes: number } };
    await fetched(id, holder, range('bytes=10-109'));
    await until(
      async () =>
        ((await show(id)) as unknown as typeof before).staged.fetchedBytes === before.staged.fetchedBytes + 100,
    );
  });
});

test('a tar is staged as well', async () => {
  const { bytes } = await fetched(await staged(['/d'], { format: 'tar' }));
  expect(bytes.includes(text('small'))).toBe(true);
});

test('until it is made the answer says how far it is, and when to ask again', async () => {
  const id = await stagePlanned(['/big']);
  const waits = await fetched(id);
  expect([waits.answer.status, waits.answer.headers.get('retry-after'), problemOf(waits.bytes)]).toEqual([
    409,
    '5',
    expect.objectContaining({ code: 'conflict', state: 'planned', percent: 0 }),
  ]);
  expect(await show(id)).toMatchObject({ staged: { percent: 0, length: null, waitsFor: 'worker' } });
  // As a worker in the middle of it has it.
  await sql(
    `UPDATE restore_requests SET state = 'running', attempt = gen_random_uuid(), seen_at = now(), done_bytes = planned_bytes / 2 WHERE restore_id = $1`,
    [id],
  );
  const runs = await fetched(id);
  expect([runs.answer.status, problemOf(runs.bytes).percent]).toEqual([409, 50]);
  expect((await world.ask('POST', `/v1/restores/${id}/stage`, { token: holder.token, body: {} })).status).toBe(409);
  expect((await link(id)).status).toBe(409);
  // Its process is gone: another begins it anew.
  expect(await stageOne(parts, id, never)).toMatchObject({ staged: 0 });
  await sql(`UPDATE restore_requests SET seen_at = now() - interval '61 s' WHERE restore_id = $1`, [id]);
  expect(await stageOne(parts, id, never)).toMatchObject({ staged: 1 });
  expect((await fetched(id)).answer.status).toBe(200);
});

describe('a link', () => {
  test('opens that archive without a sign-in, in ranges too, and each use from an address is an act once', async () => {
    const id = await staged(['/d']);
    const whole = (await fetched(id)).bytes;
    const url = await linkTo(id);
    const all = await getLink(url);
    expect([all.answer.status, all.bytes.equals(whole), all.answer.headers.get('content-disposition')]).toEqual([
      200,
      true,
      expect.stringMatching(/^attachment/),
    ]);
    const part = await getLink(url, range('bytes=5-9'));
    expect([part.answer.status, part.bytes.equals(whole.subarray(5, 10))]).toEqual([206, true]);
    expect((await getLink(url, { method: 'HEAD' })).answer.headers.get('content-length')).toBe(
      String(whole.byteLength),
    );
    const acts = (await actsOf(id)).filter(({ action }) => /link|fetch/.test(action));
    expect(acts.map(({ action, details }) => [action, details.link ?? null])).toEqual([
      ['restore.fetch', null],
      ['restore.link', null],
      ['restore.fetch', expect.stringMatching(/T/)],
    ]);
  });

  test('that was altered in anything opens nothing', async () => {
    const id = await staged(['/d']);
    const other = await staged(['/d']);
    const url = new URL(await linkTo(id));
    const changed = (change: (url: URL) => void): string => {
      const copy = new URL(url);
      change(copy);
      return copy.href;
    };
    const ends = Number(url.searchParams.get('expires'));
    const signature = url.searchParams.get('signature')!;
    const flipped = `${signature[0] === 'A' ? 'B' : 'A'}${signature.slice(1)}`;
    const altered = [
      changed((each) => each.searchParams.set('expires', String(ends + 1))),
      changed((each) => each.searchParams.set('expires', String(ends - 1))),
      changed((each) => each.searchParams.set('signature', flipped)),
      changed((each) => each.searchParams.set('signature', signature.slice(0, -1))),
      changed((each) => each.searchParams.delete('signature')),
      changed((each) => each.searchParams.delete('expires')),
      changed((each) => {
        each.pathname = each.pathname.replace(String(id), String(other));
      }),
      changed((each) => {
        each.pathname = each.pathname.replace(String(id), '999999');
      }),
    ];
    for (const each of altered) expect((await getLink(each)).answer.status).toBe(404);
    expect((await getLink(url.href)).answer.status).toBe(200);
    // It is for nothing else.
    const elsewhere = url.href.replace('/content', '');
    expect((await getLink(elsewhere)).answer.status).toBe(401);
  });

  test('ends when it says, with the archive at the latest, and a day at most', async () => {
    const id = await staged(['/d']);
    const url = await linkTo(id, holder, { seconds: 60 });
    const end = Number(new URL(url).searchParams.get('expires')) * 1_000;
    expect(Math.abs(end - Date.now() - 60_000)).toBeLessThan(5_000);
    // By then the archive expires (`keptMs` of these tests).
    const { json } = await link(id);
    expect(
      Math.abs(Date.parse(json.expiresAt as string) - Date.parse((await show(id)).lapsesAt as unknown as string)),
    ).toBeLessThan(1_001);
    for (const seconds of [59, 86_401]) expect((await link(id, holder, { seconds })).status).toBe(400);
    // Signed for a moment that is over: what this server itself would have made then.
    const { signatureOf, prepareLink } = await import('../../server/directory/restores/staging/links.ts');
    const { readRestoreRow } = await import('../../server/directory/restores/rows.ts');
    const row = (await readRestoreRow(world.storage.database, { tenant: world.tenant, restore: id }))!;
    const material = await prepareLink(world.directory, row);
    const signed = (ends: number): string => {
      const about = { restore: id, askerKind: row.askerKind, askerId: row.askerId, ...material, ends };
      return `${world.server.origin}/v1/restores/${id}/content?expires=${ends}&signature=${signatureOf(material.secret, about)}`;
    };
    const now = Math.floor(Date.now() / 1_000);
    expect((await getLink(signed(now - 2))).answer.status).toBe(404);
    expect((await getLink(signed(now + 30))).answer.status).toBe(200);
    await sql(`UPDATE restore_requests SET lapses_at = now() WHERE restore_id = $1`, [id]);
    expect((await getLink(signed(now + 30))).answer.status).toBe(404);
    expect((await show(id)).state).toBe('lapsed');
  });

  test('gives what its maker may have by now: blocked, or without the permission, nothing', async () => {
    const maker = await world.person('Admin Restore', { name: 'maker' });
    const id = await staged(['/d'], { reason: 'a test' }, maker);
    const url = await linkTo(id, maker);
    expect((await getLink(url)).answer.status).toBe(200);
    await sql(`UPDATE users SET state = 'blocked' WHERE user_id = $1`, [maker.user]);
    expect((await getLink(url)).answer.status).toBe(403);
    await sql(`UPDATE users SET state = 'active' WHERE user_id = $1`, [maker.user]);
    expect((await getLink(url)).answer.status).toBe(200);
    await sql(`DELETE FROM user_roles WHERE user_id = $1 AND role = 'Admin Restore'`, [maker.user]);
    expect((await getLink(url)).answer.status).toBe(404);
  });

  test('is broken off when its maker loses the permission on the way; a session that ends is no reason', async () => {
    const maker = await world.person('Admin Restore', { name: 'maker-on-the-way' });
    const id = await staged(['/big'], { reason: 'a test' }, maker);
    const url = new URL(await linkTo(id, maker));
    await sql(`UPDATE sessions SET ended_at = now() WHERE user_id = $1`, [maker.user]);
    const client = await h2(world.server);
    const stream = client.request({ ':path': url.pathname + url.search });
    stream.on('error', () => {});
    stream.pause();
    await until(async () => (await actsOf(id)).some(({ action }) => action === 'restore.fetch'));
    expect(stream.closed).toBe(false);
    await sql(`DELETE FROM user_roles WHERE user_id = $1 AND role = 'Admin Restore'`, [maker.user]);
    await refused(maker);
    await closed(stream); // while its reader takes nothing
    expect(stream.rstCode).not.toBe(0);
    client.destroy();
  });

  test('a streamed restore has none', async () => {
    expect((await link(await planned(['/d']))).status).toBe(409);
  });
});

describe('who asked loses the permission', () => {
  test('before it is begun: it says why, and is not tried again by itself', async () => {
    const leaver = await world.person('Admin Restore', { name: 'leaver-before' });
    const id = await stagePlanned(['/d'], { reason: 'a test' }, leaver);
    await sql(`DELETE FROM user_roles WHERE user_id = $1 AND role = 'Admin Restore'`, [leaver.user]);
    expect(await stageOne(parts, id, never)).toMatchObject({ waiting: 1 });
    const [row] = await sql<{ tries: number; why: string }>(
      'SELECT stage_tries AS tries, why FROM restore_requests WHERE restore_id = $1',
      [id],
    );
    expect(row).toMatchObject({ tries: 0 });
    expect(await stageOne(parts, id, never)).toEqual({ staged: 0, broken: 0, waiting: 0 });
  });

  test('while it is made: it ends as refused, and what was made goes', async () => {
    const leaver = await world.person('Admin Restore', { name: 'leaver-while' });
    const id = await stagePlanned(['/big'], { reason: 'a test' }, leaver);
    const making = stageOne({ ...parts, settings: { ...parts.settings, checkEveryMs: 5 } }, id, never);
    await until(async () => (await stagedRows(id)).length > 0);
    await sql(`DELETE FROM user_roles WHERE user_id = $1 AND role = 'Admin Restore'`, [leaver.user]);
    await making;
    const [row] = await sql<{ state: string }>('SELECT state FROM restore_requests WHERE restore_id = $1', [id]);
    expect(row!.state).toBe('refused');
    expect(await stagedRows(id)).toMatchObject([{ state: 'dead', hasKey: false }]);
  });

  test('while it is fetched: the answer is broken off', async () => {
    const leaver = await world.person('Admin Restore', { name: 'leaver-fetching' });
    const id = await staged(['/big'], { reason: 'a test' }, leaver);
    const stream = opened(id, leaver);
    await until(async () => (await actsOf(id)).some(({ action }) => action === 'restore.fetch'));
    await sql(`DELETE FROM user_roles WHERE user_id = $1 AND role = 'Admin Restore'`, [leaver.user]);
    await refused(leaver);
    await closed(stream); // while its reader takes nothing
    expect(stream.rstCode).not.toBe(0);
  });
});
