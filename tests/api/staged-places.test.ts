/** Whose places and memory staged restores take, and what fetching them does when others, or the database, are in the way. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { sha256 } from '../../protocol/hashes.ts';
import { wrapKey } from '../../protocol/sealing/index.ts';
import { vaultKeyContext } from '../../server/directory/keys/key-service.ts';
import { findRestoreTarget } from '../../server/directory/restores/history.ts';
import { openStaged } from '../../server/directory/restores/staging/fetch-staged.ts';
import { noteFetch } from '../../server/directory/restores/staging/rows.ts';
import { h2, startTestServer, until } from '../../server/http/testing.ts';
import { Room } from '../../server/restoring/flow/room.ts';
import { key } from '../../server/restoring/testing.ts';
import type { Storage } from '../../storage/storage.ts';
import { big, closeWorld, engine, fetched, holder, keyOf, planned, show, world } from './restoring.ts';
import {
  expectNoFaults,
  fence,
  getLink,
  linkTo,
  openStagingWorld,
  problemOf,
  range,
  sql,
  staged,
  stagedRows,
  stagePlanned,
} from './staging.ts';

beforeAll(openStagingWorld, 60_000);
afterAll(closeWorld);
expectNoFaults();

type Settings = NonNullable<Parameters<typeof startTestServer>[0]['settings']>;

/** Another server of the same catalog, for as long as the work takes. */
async function withServer(
  settings: Settings,
  work: (origin: string) => Promise<void>,
  storage: Storage = world.storage,
): Promise<void> {
  const server = await startTestServer({ storage, directory: world.directory, cleartext: true, settings });
  try {
    await work(server.origin);
  } finally {
    await server.shutDown({ leaveMs: 0, drainMs: 100 });
  }
}
const at = (origin: string, path: string, init: RequestInit = {}, who = holder) =>
  fetch(`${origin}${path}`, { ...init, headers: { authorization: `Bearer ${who.token}`, ...init.headers } });

/** A download whose reader takes nothing, over a connection of its own. */
async function paused(origin: string, path: string, headers: Record<string, string> = {}) {
  const client = await h2({ origin });
  const stream = client.request({ ':path': path, ...headers });
  stream.on('error', () => {});
  const { promise: answered, resolve } = Promise.withResolvers<number>();
  stream.on('response', ({ ':status': status }) => resolve(Number(status)));
  stream.pause();
  return { status: await answered, end: () => client.destroy() };
}

describe('places', () => {
  test('downloads by a link take none of its maker, who goes on with everything else', async () => {
    const id = await staged(['/big']);
    const { pathname, search } = new URL(await linkTo(id));
    await withServer({ requestsPerDeviceMax: 1, downloadsPerPersonMax: 1, slotWaitMs: 50 }, async (origin) => {
      const download = await paused(origin, pathname + search);
      try {
        expect(download.status).toBe(200);
        // Its own place is taken, and no other.
        expect((await fetch(`${origin}${pathname}${search}`)).status).toBe(503);
        expect((await at(origin, `/v1/restores/${id}`)).status).toBe(200);
        expect((await at(origin, pathname, range('bytes=0-9'))).status).toBe(206);
      } finally {
        download.end();
      }
    });
  });

  test('one tenant has some of them, and one more is told to come back', async () => {
    const id = await staged(['/big']);
    const other = await staged(['/d']);
    const path = `/v1/restores/${id}/content`;
    await withServer({ downloadsPerTenantMax: 1, slotWaitMs: 50 }, async (origin) => {
      const download = await paused(origin, path, { authorization: `Bearer ${holder.token}` });
      expect((await at(origin, `/v1/restores/${other}/content`)).status).toBe(503);
      download.end();
      await until(async () => (await at(origin, `/v1/restores/${other}/content`)).status === 200);
    });
  });

  test('what is staged with a password has few of its own, since its parts are in no budget', async () => {
    const password = 'correct horse';
    const { promise: mayGo, resolve: go } = Promise.withResolvers<void>();
    const { objects } = world.storage;
    const slow = new Proxy(objects, {
      get(target, name) {
        if (name === 'put')
          return async (...put: Parameters<typeof objects.put>) => {
            await mayGo;
            return objects.put(...put);
          };
        const value = Reflect.get(target, name) as unknown;
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
    const storage = Object.create(world.storage, { objects: { value: slow } }) as Storage;
    const options = { generation: 1, memoryKiB: 19 * 1024, passes: 2, parallelism: 1 };
    await keyOf(engine.ref.vault, 'password', await wrapKey(key, password, options));
    try {
      const [first, second] = [await stagePlanned(['/big']), await stagePlanned(['/big'])];
      const body = JSON.stringify({ password });
      await withServer(
        { stagingsMax: 1, slotWaitMs: 50 },
        async (origin) => {
          const begin = (id: number, idempotencyKey: string = randomUUID()) =>
            at(origin, `/v1/restores/${id}/stage`, {
              method: 'POST',
              headers: { 'content-type': 'application/json', 'idempotency-key': idempotencyKey },
              body,
            });
          const asked = randomUUID();
          expect((await begin(first!, asked)).status).toBe(200);
          // What is kept of the request is no hash of the password, which anybody who reads the rows could guess at fast.
          const kept = await sql<{ hash: Buffer }>(
            "SELECT request_sha256 AS hash FROM requests_made WHERE key = 'given ' || $1",
            [asked],
          );
          const hashOf = (of: object): Buffer => {
            const request = {
              method: 'POST',
              path: '/v1/restores/:id/stage',
              params: { id: first },
              query: {},
              body: of,
            };
            return sha256(Buffer.from(JSON.stringify(request)));
          };
          expect(kept).toEqual([{ hash: hashOf({ password: true }) }]);
          expect([(await begin(second!)).status, (await show(second!)).state]).toEqual([503, 'planned']);
          // The same request once more, whose answer was lost, is told what it did; another that it runs.
          const again = await begin(first!, asked);
          expect([again.status, again.headers.get('idempotency-replayed')]).toEqual([200, 'true']);
          expect((await begin(first!)).status).toBe(409);
          go();
          await until(async () => (await show(first!)).state === 'completed', 20_000);
          // Whoever gave the password is in the log with where they asked from.
          const acts = await sql<{ address: string | null }>(
            `SELECT address FROM acts WHERE action = 'restore.begin' AND (details->>'restore')::bigint = $1`,
            [first],
          );
          expect(acts).toEqual([{ address: '127.0.0.1' }]);
          await until(async () => (await begin(second!)).status === 200);
          await until(async () => (await show(second!)).state === 'completed', 20_000);
        },
        storage,
      );
    } finally {
      go();
      const { user } = holder;
      await keyOf(engine.ref.vault, 'standard', await world.directory.keys.seal(key, vaultKeyContext(user, 1)));
    }
  });

  test('what is staged with a password ends with its server, whose row says so, and is begun anew by asking', async () => {
    const password = 'correct horse';
    const { promise: mayGo, resolve: go } = Promise.withResolvers<void>();
    const { objects } = world.storage;
    const slow = Object.create(objects, {
      put: {
        value: async (...put: Parameters<typeof objects.put>) => {
          await Promise.race([mayGo, new Promise((resolve) => put[2]!.signal!.addEventListener('abort', resolve))]);
          put[2]!.signal!.throwIfAborted();
          return objects.put(...put);
        },
      },
    }) as typeof objects;
    const storage = Object.create(world.storage, { objects: { value: slow } }) as Storage;
    const options = { generation: 1, memoryKiB: 19 * 1024, passes: 2, parallelism: 1 };
    await keyOf(engine.ref.vault, 'password', await wrapKey(key, password, options));
    const begin = (origin: string, id: number) =>
      at(origin, `/v1/restores/${id}/stage`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ password }),
      });
    try {
      const id = await stagePlanned(['/big']);
      const server = await startTestServer({ storage, directory: world.directory, cleartext: true, settings: {} });
      expect((await begin(server.origin, id)).status).toBe(200);
      expect((await show(id)).state).toBe('running');
      const { cut } = await server.shutDown({ leaveMs: 0, drainMs: 20_000 });
      expect(cut).toBe(0);
      expect(await show(id)).toMatchObject({ state: 'broken', why: 'the server that made it stopped' });
      expect((await show(id)).staged).toMatchObject({ waitsFor: 'request' });
      expect((await stagedRows(id)).map(({ state, hasKey }) => [state, hasKey])).toEqual([['dead', false]]);
      go();
      await withServer({}, async (origin) => {
        expect((await begin(origin, id)).status).toBe(200);
        await until(async () => (await show(id)).state === 'completed', 20_000);
      });
    } finally {
      go();
      const { user } = holder;
      await keyOf(engine.ref.vault, 'standard', await world.directory.keys.seal(key, vaultKeyContext(user, 1)));
    }
  });

  test('addresses that come by links are counted apart from those that are signed in', async () => {
    const id = await staged(['/d']);
    const [row] = await sql<{ staged: number }>(
      'SELECT staged_id::int AS staged FROM staged_archives WHERE restore_id = $1',
      [id],
    );
    const from = (linkEnds: number, address: string) =>
      world.storage.database.transaction((tx) =>
        noteFetch(tx, { staged: row!.staged, tenant: world.tenant, linkEnds, address }, 2),
      );
    expect([await from(7, 'a'), await from(8, 'b'), await from(8, 'c'), await from(8, 'b')]).toEqual([
      'first',
      'first',
      'full',
      'known',
    ]);
    expect([await from(0, 'a'), await from(0, 'b'), await from(0, 'c')]).toEqual(['first', 'first', 'full']);
  });
});

describe('If-Match', () => {
  test('of what is staged: as long as it is that, and 412 otherwise', async () => {
    const id = await staged(['/d']);
    const { answer, bytes } = await fetched(id);
    const etag = answer.headers.get('etag')!;
    for (const same of [etag, '*', `"other", ${etag}`]) {
      const got = await fetched(id, holder, range('bytes=3-5', { 'if-match': same }));
      expect([got.answer.status, got.bytes.equals(bytes.subarray(3, 6))]).toEqual([206, true]);
    }
    for (const other of ['"other"', `W/${etag}`, 'no etag', '"7"']) {
      const got = await fetched(id, holder, { headers: { 'if-match': other } });
      expect([got.answer.status, problemOf(got.bytes).code]).toEqual([412, 'precondition_failed']);
    }
    const link = await getLink(await linkTo(id), { headers: { 'if-match': etag } });
    expect([link.answer.status, link.bytes.equals(bytes)]).toEqual([200, true]);
  });

  test('of what is made while it is sent: it has no ETag, and is not begun', async () => {
    const id = await planned(['/d']);
    expect((await fetched(id, holder, { headers: { 'if-match': '"other"' } })).answer.status).toBe(412);
    expect((await show(id)).state).toBe('planned');
    expect((await fetched(id, holder, { headers: { 'if-match': '*' } })).answer.status).toBe(200);
  });
});

/** The database of these tests, which can be away. */
function leaving() {
  const { database } = world.storage;
  const state = { isAway: false };
  const away = new Proxy(database, {
    get(target, name) {
      const value = Reflect.get(target, name) as unknown;
      if (typeof value !== 'function') return value;
      return (...given: unknown[]) =>
        state.isAway
          ? Promise.reject(new Error('the database is away'))
          : (value as (...all: unknown[]) => unknown).apply(target, given);
    },
  });
  return { state, database: away };
}

describe('a download', () => {
  async function open(id: number, more: Partial<Parameters<typeof openStaged>[0]> = {}) {
    const actor = { tenant: world.tenant, organization: world.top, user: holder.user, grants: [] };
    const target = (await findRestoreTarget(world.storage.database, actor, id))!;
    const { storage, directory } = world;
    const by = {
      tenant: world.tenant,
      party: { kind: 'user' as const, id: holder.user, name: holder.name },
      address: '192.0.2.1',
    };
    return openStaged({
      ...{ storage, directory, fence, by, address: '192.0.2.1', target, linkEnds: 0, checkEveryMs: 10 },
      room: new Room(64 * 1024 * 1024),
      signal: new AbortController().signal,
      stillMay: async () => {},
      cut: () => {},
      onFault: () => {},
      ...more,
    });
  }

  test('of which nobody can be asked whether it may go on is broken off after a while, and not before', async () => {
    const id = await staged(['/big']);
    const { state, database } = leaving();
    let cuts = 0;
    const faults: unknown[] = [];
    const { length, read } = await open(id, {
      directory: { ...world.directory, database },
      unaskedMsMax: 300,
      cut: () => void cuts++,
      onFault: (error) => void faults.push(error),
    });
    const bytes = read({ offset: 0, length })[Symbol.asyncIterator]();
    await bytes.next();
    // Away for a moment only: it goes on.
    state.isAway = true;
    await until(() => faults.length > 0);
    state.isAway = false;
    await bytes.next();
    expect(cuts).toBe(0);
    state.isAway = true;
    await until(() => cuts === 1);
    state.isAway = false;
    await expect(
      (async () => {
        while (!(await bytes.next()).done);
      })(),
    ).rejects.toThrow('nobody could be asked');
  });

  test('by a link is broken off when the link has ended, though what it opens is there, and its reader takes nothing', async () => {
    const id = await staged(['/big']);
    const now = async () => (await sql<{ now: number }>('SELECT floor(extract(epoch FROM now()))::int AS now'))[0]!.now;
    const ends = (await now()) + 2;
    let cutAt = 0;
    const cut = async () => {
      cutAt = await now();
    };
    const { length, read } = await open(id, { linkEnds: ends, cut });
    const bytes = read({ offset: 0, length })[Symbol.asyncIterator]();
    await bytes.next();
    // Somebody who is signed in goes on.
    const { read: readOn } = await open(id);
    const others = readOn({ offset: 0, length })[Symbol.asyncIterator]();
    await others.next();
    await until(() => cutAt > 0, 10_000);
    expect(cutAt).toBeGreaterThanOrEqual(ends);
    await expect(
      (async () => {
        while (!(await bytes.next()).done);
      })(),
    ).rejects.toMatchObject({ code: 'not_found', message: 'the link to this restore has ended' });
    let left = 1;
    for (; !(await others.next()).done; left++);
    expect(left).toBeGreaterThan(100);
  });

  test('holds of the shared memory what it reads ahead, and gives it back whatever ends it', async () => {
    const id = await staged(['/big']);
    const totalBytes = 6 * 1024 * 1024;
    const room = new Room(totalBytes);
    const { length, read } = await open(id, { room });
    const whole = async () => {
      const pieces: Uint8Array[] = [];
      for await (const piece of read({ offset: 0, length })) pieces.push(piece);
      return Buffer.concat(pieces);
    };
    const slow = read({ offset: 0, length })[Symbol.asyncIterator]();
    await slow.next();
    expect(room.freeBytes).toBeLessThan(totalBytes);
    // One whose reader is slow keeps nobody from theirs.
    const all = await Promise.all([whole(), whole(), whole(), whole(), whole(), whole()]);
    for (const each of all) expect(each.equals(all[0]!)).toBe(true);
    expect(all[0]!.byteLength).toBeGreaterThan(big.byteLength);
    await slow.return?.(undefined);
    expect([room.freeBytes, room.shareBytes]).toEqual([totalBytes, totalBytes]);
  });
});
