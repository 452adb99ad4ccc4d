/** Restores as workers stage them: who makes which, what ends one, the room there is, and what is left behind. */
import { randomBytes, randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { wrapKey } from '../../protocol/sealing/index.ts';
import { vaultKeyContext } from '../../server/directory/keys/key-service.ts';
import { deleteStaged } from '../../server/directory/restores/staging/delete-staged.ts';
import { insertStaged, lockStagingRoom } from '../../server/directory/restores/staging/rows.ts';
import { stageOne } from '../../server/directory/restores/staging/stage-due.ts';
import { startTestServer, until } from '../../server/http/testing.ts';
import { damage, key, readZip } from '../../server/restoring/testing.ts';
import {
  actsOf,
  asJson,
  big,
  closed,
  closeWorld,
  engine,
  fetched,
  holder,
  keyOf,
  opened,
  plan,
  planned,
  show,
  text,
  world,
} from './restoring.ts';
import {
  clean,
  expectNoFaults,
  getLink,
  linkTo,
  never,
  objectsOf,
  openStagingWorld,
  parts,
  range,
  sql,
  stageAll,
  staged,
  stagedRows,
  stagePlanned,
} from './staging.ts';

beforeAll(openStagingWorld, 60_000);
afterAll(closeWorld);
expectNoFaults();

test('of two workers that begin one, one makes it', async () => {
  const id = await stagePlanned(['/big']);
  const both = await Promise.all([stageOne(parts, id, never), stageOne(parts, id, never)]);
  expect(both.map(({ staged }) => staged).sort()).toEqual([0, 1]);
  expect(await show(id)).toMatchObject({ state: 'completed', tries: 1 });
  expect((await stagedRows(id)).map(({ state }) => state)).toEqual(['ready']);
});

test('a worker that is stopped half-way leaves it to the next, which begins anew', async () => {
  const id = await stagePlanned(['/big']);
  const stop = new AbortController();
  const stopping = stageOne({ ...parts, settings: { ...parts.settings, checkEveryMs: 5 } }, id, stop.signal);
  await until(async () => (await objectsOf(id)).length > 0);
  stop.abort(new Error('the worker stops'));
  await stopping;
  expect(await show(id)).toMatchObject({
    state: 'broken',
    staged: { waitsFor: 'worker' },
    why: 'the server that made it stopped',
  });
  expect(await stagedRows(id)).toMatchObject([{ state: 'dead', hasKey: false }]);
  expect(await stageOne(parts, id, never)).toMatchObject({ staged: 1 });
  expect(await stagedRows(id)).toMatchObject([{ state: 'dead' }, { state: 'ready', hasKey: true }]);
  expect((await clean()).deleted).toBeGreaterThan(0);
  expect(
    readZip((await fetched(id)).bytes)
      .get('big')
      ?.content.equals(big),
  ).toBe(true);
});

describe('cancelled', () => {
  test('while it is made, from another process: within seconds, and its parts go', async () => {
    const id = await stagePlanned(['/big']);
    const making = stageOne(parts, id, never);
    await until(async () => (await objectsOf(id)).length > 0);
    await world.ask('POST', `/v1/restores/${id}/cancel`, { token: holder.token });
    await making;
    expect((await show(id)).state).toBe('cancelled');
    expect(await stagedRows(id)).toMatchObject([{ state: 'dead', hasKey: false }]);
    await clean();
    expect([await objectsOf(id), await stageOne(parts, id, never)]).toEqual([[], { staged: 0, broken: 0, waiting: 0 }]);
  });

  test('when it is there: nobody fetches it any more, with a link or without', async () => {
    const id = await staged(['/d']);
    const url = await linkTo(id);
    expect((await world.ask('POST', `/v1/restores/${id}/cancel`, { token: holder.token })).json.state).toBe(
      'cancelled',
    );
    expect(await stagedRows(id)).toMatchObject([{ state: 'dead', hasKey: false }]);
    expect((await fetched(id)).answer.status).toBe(409);
    expect((await getLink(url)).answer.status).toBe(404);
    await clean();
    expect([await objectsOf(id), await stagedRows(id)]).toEqual([[], []]);
  });

  test('while it is fetched: the answer is broken off', async () => {
    const id = await staged(['/big']);
    const stream = opened(id);
    await until(async () => (await actsOf(id)).some(({ action }) => action === 'restore.fetch'));
    await world.ask('POST', `/v1/restores/${id}/cancel`, { token: holder.token });
    await closed(stream); // while its reader takes nothing
    expect(stream.rstCode).not.toBe(0);
  });
});

describe('damage', () => {
  test('of the archive, in the middle of a large file: the next try leaves it out', async () => {
    const [hashes] = (await engine.back(
      { path: '/hurt/big', content: randomBytes(9_000_000) },
      { path: '/hurt/z', content: text('z') },
    )) as [Buffer[]];
    await damage(engine, hashes.at(-2)!, 'flip');
    const id = await stagePlanned(['/hurt']);
    expect(await stageOne(parts, id, never)).toMatchObject({ broken: 1 });
    expect(await show(id)).toMatchObject({ state: 'broken', staged: { waitsFor: 'worker' } });
    await sql(`UPDATE restore_requests SET stage_after = now() WHERE restore_id = $1`, [id]);
    expect(await stageAll()).toMatchObject({ staged: 1 });
    expect([...readZip((await fetched(id)).bytes).keys()]).toEqual(['hurt/z', 'RESTORE-INCOMPLETE.txt']);
  });

  test('of what is staged: the answer is broken off, and it is made anew, as another', async () => {
    const id = await staged(['/big']);
    const before = await fetched(id);
    const url = await linkTo(id);
    const key = (await objectsOf(id))[3]!;
    const pieces: Uint8Array[] = [];
    for await (const piece of (await world.storage.objects.get(key)).stream) pieces.push(piece);
    const bytes = Buffer.concat(pieces);
    bytes[70_000]! ^= 1;
    await world.storage.objects.delete(key);
    await world.storage.objects.put(key, { length: bytes.byteLength, chunks: [bytes] });
    await expect(fetched(id)).rejects.toThrow();
    await until(async () => (await show(id)).state === 'broken');
    expect(await show(id)).toMatchObject({
      why: expect.stringMatching(/damaged in the store/),
      staged: { waitsFor: 'worker' },
    });
    expect((await getLink(url)).answer.status).toBe(404);
    expect(await stageOne(parts, id, never)).toMatchObject({ staged: 1 });
    const after = await fetched(id);
    expect(after.bytes.equals(before.bytes)).toBe(true);
    expect(after.answer.headers.get('etag')).not.toBe(before.answer.headers.get('etag'));
    expect((await getLink(url)).answer.status).toBe(404);
    const resumed = await fetched(id, holder, range('bytes=5-', { 'if-range': before.answer.headers.get('etag')! }));
    expect(resumed.answer.status).toBe(200);
  });
});

describe('room', () => {
  const small = (bytesMax: number, personBytesMax = bytesMax, tenantBytesMax = 1e12) => ({
    ...parts,
    settings: { ...parts.settings, bytesMax, tenantBytesMax, personBytesMax },
  });
  const needed = async (id: number): Promise<number> => {
    const { reservedFor } = await import('../../server/directory/restores/staging/room.ts');
    const { files, folders, links, bytes } = (await show(id)).planned as unknown as Record<string, number>;
    return reservedFor({ plannedBytes: bytes!, plannedFiles: files!, plannedFolders: folders!, plannedLinks: links! });
  };
  const taken = async (): Promise<number> =>
    Number((await sql<{ n: string }>('SELECT coalesce(sum(reserved_bytes), 0)::int AS n FROM staged_archives'))[0]!.n);

  test.each(['all', 'one person'])('for %s: exactly so much is begun, and one byte less waits', async (whose) => {
    const id = await stagePlanned(['/d']);
    const most = (await taken()) + (await needed(id));
    const bounds = (bytes: number) => (whose === 'all' ? small(bytes, 1e12) : small(1e12, bytes));
    // Of one person, what they have.
    const own =
      whose === 'all'
        ? most
        : (await needed(id)) +
          Number(
            (
              await sql<{ n: number }>(
                `SELECT coalesce(sum(reserved_bytes), 0)::int AS n FROM staged_archives WHERE asker_id = $1`,
                [holder.user],
              )
            )[0]!.n,
          );
    expect(await stageOne(bounds(own - 1), id, never)).toMatchObject({ waiting: 1 });
    expect(await show(id)).toMatchObject({
      state: 'planned',
      tries: 0,
      why: expect.stringMatching(/waits for room/),
      staged: { waitsFor: 'worker' },
    });
    expect(await stagedRows(id)).toEqual([]);
    await sql(`UPDATE restore_requests SET stage_after = now() WHERE restore_id = $1`, [id]);
    expect(await stageOne(bounds(own), id, never)).toMatchObject({ staged: 1 });
    // What was reserved and not needed is free again.
    expect((await stagedRows(id))[0]!.reserved).toBeLessThan(await needed(id));
  });

  test('two that begin at once do not both take the last of it', async () => {
    const ids = [await stagePlanned(['/big']), await stagePlanned(['/big'])];
    const one = (await taken()) + (await needed(ids[0]!));
    const both = await Promise.all(ids.map((id) => stageOne(small(one, 1e12), id, never)));
    expect(both.map(({ staged }) => staged).sort()).toEqual([0, 1]);
    for (const id of ids) await world.ask('POST', `/v1/restores/${id}/cancel`, { token: holder.token });
  });

  test('who asks for room waits for whoever takes some, and finds it taken', async () => {
    const id = await stagePlanned(['/d']);
    const most = (await taken()) + (await needed(id));
    const { promise: isHeld, resolve: held } = Promise.withResolvers<void>();
    const { promise: mayGo, resolve: go } = Promise.withResolvers<void>();
    const asker = { tenant: world.tenant, kind: 'user' as const, id: 1 };
    const about = { tenant: world.tenant, restore: 888_888, user: 1, asker, partFrames: 1 };
    const taking = world.storage.database.transaction(async (tx) => {
      await lockStagingRoom(tx, asker);
      held();
      await mayGo;
      await insertStaged(tx, { ...about, attempt: randomUUID(), keyRecord: Buffer.from([1]), reservedBytes: 1 });
    });
    await isHeld;
    const trying = stageOne(small(most, 1e12), id, never);
    await until(async () => {
      const text = `SELECT 1 FROM pg_stat_activity WHERE wait_event = 'advisory' AND datname = current_database()`;
      return (await sql(text)).length > 0;
    });
    go();
    await taking;
    expect(await trying).toMatchObject({ waiting: 1 });
    await sql('DELETE FROM staged_archives WHERE restore_id = 888888');
  });

  test('what is never possible is refused when it is planned, and what is not possible now too', async () => {
    const full = await startTestServer({
      storage: world.storage,
      directory: world.directory,
      cleartext: true,
      settings: { stagingBytesMax: (await taken()) + 1, stagingPersonBytesMax: 1e12 },
    });
    const ask = async (settingsServer: { origin: string }) => {
      const answer = await fetch(`${settingsServer.origin}/v1/restores`, {
        ...asJson({ device: holder.guid, paths: ['/d'], kind: 'staged' }),
        headers: { 'content-type': 'application/json', authorization: `Bearer ${holder.token}` },
      });
      return [answer.status, ((await answer.json()) as { code: string }).code, answer.headers.get('retry-after')];
    };
    expect(await ask(full)).toEqual([429, 'too_many_requests', '60']);
    await full.shutDown({ leaveMs: 0, drainMs: 100 });
    const tiny = await startTestServer({
      storage: world.storage,
      directory: world.directory,
      cleartext: true,
      settings: { stagingPersonBytesMax: 1_000 },
    });
    expect(await ask(tiny)).toEqual([409, 'conflict', null]);
    await tiny.shutDown({ leaveMs: 0, drainMs: 100 });
  });

  test('an archive that grows beyond its plan takes more room, or ends', async () => {
    const id = await stagePlanned(['/big']);
    const bytes = await needed(id);
    await sql('UPDATE restore_requests SET planned_bytes = 1 WHERE restore_id = $1', [id]);
    const most = (await taken()) + (await needed(id));
    expect(await stageOne(small(most, 1e12), id, never)).toMatchObject({ broken: 1 });
    expect(await show(id)).toMatchObject({ state: 'broken', why: expect.stringMatching(/no room/) });
    await sql('UPDATE restore_requests SET stage_after = now() WHERE restore_id = $1', [id]);
    await clean();
    expect(await stageOne(small(most + bytes + 16 * 1024 * 1024, 1e12), id, never)).toMatchObject({ staged: 1 });
  });
});

describe('cleaning', () => {
  test('what has expired goes: its key at once, its objects, its row', async () => {
    await clean();
    const id = await staged(['/d']);
    await sql('UPDATE restore_requests SET lapses_at = now() WHERE restore_id = $1', [id]);
    expect(await clean(60_000)).toMatchObject({ ended: 1, forgotten: 0 });
    expect([await objectsOf(id), await stagedRows(id)]).toMatchObject([
      [],
      [{ state: 'dead', hasKey: false, reserved: 0 }],
    ]);
    // What a put that was late brought is found, too.
    const { attempt } = (await stagedRows(id))[0]!;
    const late = `${world.storage.catalogId}/staging/${id}.${attempt.replaceAll('-', '')}/00000099`;
    await world.storage.objects.put(late, { length: 3, chunks: [Buffer.from('abc')] });
    expect(await clean(0)).toMatchObject({ deleted: 1, forgotten: 1 });
    expect([await objectsOf(id), await stagedRows(id)]).toEqual([[], []]);
  });

  test('what a process left that is not heard of goes, and what one makes stays', async () => {
    const id = await stagePlanned(['/big']);
    const making = stageOne(parts, id, never);
    await until(async () => (await stagedRows(id)).length > 0);
    expect(await clean()).toMatchObject({ ended: 0 });
    await making;
    await sql(
      `UPDATE restore_requests SET state = 'running', attempt = (SELECT attempt FROM staged_archives s WHERE s.restore_id = $1), seen_at = now() - interval '61 s' WHERE restore_id = $1`,
      [id],
    );
    await sql(`UPDATE staged_archives SET state = 'staging' WHERE restore_id = $1`, [id]);
    expect(await clean()).toMatchObject({ ended: 1, forgotten: 1 });
    expect(await objectsOf(id)).toEqual([]);
    await world.ask('POST', `/v1/restores/${id}/cancel`, { token: holder.token });
  });

  test('objects that no row knows go; those of other names and prefixes stay', async () => {
    const { storage } = world;
    const orphan = `${storage.catalogId}/staging/77.${'ab'.repeat(16)}/00000000`;
    const strange = `${storage.catalogId}/staging/notes`;
    const elsewhere = `other-catalog/staging/77.${'ab'.repeat(16)}/00000000`;
    for (const each of [orphan, strange, elsewhere])
      await storage.objects.put(each, { length: 1, chunks: [Buffer.from('x')] });
    expect(await clean()).toMatchObject({ orphans: 1, deleted: 1 });
    expect(await storage.objects.head(orphan)).toBeNull();
    for (const each of [strange, elsewhere]) {
      expect(await storage.objects.head(each)).not.toBeNull();
      await storage.objects.delete(each);
    }
  });

  test('nothing is deleted while the fence does not hold', async () => {
    const id = await staged(['/d']);
    await world.ask('POST', `/v1/restores/${id}/cancel`, { token: holder.token });
    const stopped = {
      assertHeld: async () => {
        throw new Error('deleting is stopped');
      },
      assertStillHeld: () => {},
    };
    await expect(deleteStaged(world.storage, stopped, { lateMs: 0 })).rejects.toThrow('deleting is stopped');
    expect((await objectsOf(id)).length).toBeGreaterThan(0);
    await clean();
    expect(await objectsOf(id)).toEqual([]);
  });
});

describe('what an archive password wraps', () => {
  test('is begun by whoever gives it, in the process that was told, and then fetched without', async () => {
    const password = 'correct horse';
    await keyOf(
      engine.ref.vault,
      'password',
      await wrapKey(key, password, { generation: 1, memoryKiB: 64 * 1024, passes: 3, parallelism: 1 }),
    );
    try {
      const id = await stagePlanned(['/d']);
      expect(await show(id)).toMatchObject({ staged: { waitsFor: 'request' } });
      expect(await stageAll()).toEqual({ staged: 0, broken: 0, waiting: 0 });
      const begin = (body: object) => world.ask('POST', `/v1/restores/${id}/stage`, { token: holder.token, body });
      expect((await begin({})).json).toMatchObject({ code: 'malformed_request', field: 'password' });
      expect((await begin({ password: 'wrong' })).status).toBe(403);
      expect(await stagedRows(id)).toMatchObject([{ state: 'dead' }]);
      expect((await begin({ password })).status).toBe(200);
      await until(async () => (await show(id)).state === 'completed', 20_000);
      expect([...readZip((await fetched(id)).bytes).keys()]).toContain('d/small');
      const places = await sql<{ text: string }>(
        `SELECT r::text || coalesce((SELECT string_agg(a::text, ' ') FROM acts a), '') AS text FROM restore_requests r WHERE restore_id = $1`,
        [id],
      );
      expect(places[0]!.text).not.toContain(password);
    } finally {
      const { user } = holder;
      await keyOf(engine.ref.vault, 'standard', await world.directory.keys.seal(key, vaultKeyContext(user, 1)));
    }
  });
});

test('a restore that is streamed is not staged', async () => {
  const id = await planned(['/d']);
  expect((await world.ask('POST', `/v1/restores/${id}/stage`, { token: holder.token, body: {} })).status).toBe(409);
  expect(await stageOne(parts, id, never)).toEqual({ staged: 0, broken: 0, waiting: 0 });
});

test('planning what the server has no key for is refused as for a streamed one', async () => {
  await keyOf(engine.ref.vault, 'custom', Buffer.from([1]));
  expect((await plan(['/d'], { kind: 'staged' })).status).toBe(409);
  await keyOf(engine.ref.vault, 'standard', await world.directory.keys.seal(key, vaultKeyContext(holder.user, 1)));
});
