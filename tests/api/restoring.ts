/**
 * For tests of restores over HTTP: an archive sealed as an agent seals, of somebody of the API's world, and ways to plan,
 * fetch and look up. One world for each file of tests.
 */
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import type { ClientHttp2Session, ClientHttp2Stream } from 'node:http2';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { vaultKeyContext } from '../../server/directory/keys/key-service.ts';
import { h2, until } from '../../server/http/testing.ts';
import { key, makeWorld, type World } from '../../server/restoring/testing.ts';
import { putVaultKey } from '../../storage/catalog/vaults.ts';
import type { ArchiveRef } from '../../storage/storage.ts';
import { type Answer, ApiWorld, type Holder } from './world.ts';

export let folder: string;
export let engine: World;
export let world: ApiWorld;
/** Whose archive it is. */
export let holder: Holder;
export let session: ClientHttp2Session;

export const text = (content: string): Buffer => Buffer.from(content.repeat(30));
export const big = randomBytes(9_000_000);

export async function openWorld(): Promise<void> {
  folder = await mkdtemp(join(tmpdir(), 'restores-'));
  engine = await makeWorld(folder);
  await engine.back(
    { path: '/d' },
    { path: '/d/small', content: text('small') },
    { path: '/d/ärger.txt', content: text('umlaut') },
    { path: Buffer.from([...Buffer.from('/d/'), 0x66, 0xff]), content: text('no text') },
    { path: '/big', content: big },
  );
  // Its user is found below.
  await engine.storage.rows('UPDATE vaults SET user_id = -user_id');
  world = await ApiWorld.open(engine.storage, {
    settings: { restoreWindowBytes: 4_000_000, restoreCheckMs: 50, writeStallMs: 3_000, slotWaitMs: 100 },
  });
  holder = await world.person('Desktop User', { name: 'holder' });
  await give(holder, engine.ref);
  const { user } = holder;
  await keyOf(engine.ref.vault, 'standard', await world.directory.keys.seal(key, vaultKeyContext(user, 1)));
  session = await h2(world.server);
}

export async function closeWorld(): Promise<void> {
  session?.destroy();
  await (world ?? engine)?.close();
  await rm(folder, { recursive: true, force: true });
}

/** Makes the archive that of somebody's device. */
async function give({ user, guid }: Holder, { vault, archive }: ArchiveRef): Promise<void> {
  await world.storage.rows('UPDATE vaults SET user_id = -user_id WHERE user_id = $1', [user]);
  await world.storage.rows('UPDATE vaults SET user_id = $2 WHERE vault_id = $1', [vault, user]);
  await world.storage.rows('UPDATE devices SET vault_id = $2, archive_id = $3, name = $4 WHERE guid = $1', [
    guid,
    vault,
    archive,
    'Änns Läptop',
  ]);
  // Of the vault before; all of a user's are in one.
  await world.storage.rows('DELETE FROM restic_tokens WHERE user_id = $1', [user]);
  await world.storage.rows('DELETE FROM devices WHERE user_id = $1 AND guid <> $2', [user, guid]);
}

export async function keyOf(vault: number, level: 'standard' | 'password' | 'custom', record: Buffer): Promise<void> {
  await world.storage.rows('DELETE FROM vault_keys WHERE vault_id = $1', [vault]);
  await world.storage.database.transaction((tx) => putVaultKey(tx, vault, { generation: 1, level, record }));
}

export async function setting(name: string, value: number | null): Promise<void> {
  const { tenant, top } = world;
  await world.storage.rows('DELETE FROM organization_settings WHERE name = $1', [name]);
  if (value !== null)
    await world.storage.rows(
      'INSERT INTO organization_settings (tenant_id, organization_id, name, value) VALUES ($1, $2, $3, to_jsonb($4::bigint))',
      [tenant, top, name, value],
    );
}

export const plan = (paths: unknown[], more: object = {}, who: Holder = holder): Promise<Answer> =>
  world.ask('POST', '/v1/restores', { token: who.token, body: { device: holder.guid, paths, ...more } });
export const planned = async (paths: unknown[], more: object = {}, who: Holder = holder): Promise<number> => {
  const { status, json, text } = await plan(paths, more, who);
  if (status !== 201) throw new Error(`${status} ${text}`);
  return json.id as number;
};
export const show = async (id: number, who: Holder = holder) =>
  (await world.ask('GET', `/v1/restores/${id}`, { token: who.token })).json as Record<string, never> & {
    state: string;
    done: { files: number; bytes: number; sentBytes: number; leftOut: number };
  };

export async function fetched(id: number, who: Holder = holder, init: RequestInit = {}) {
  const answer = await fetch(`${world.server.origin}/v1/restores/${id}/content`, {
    ...init,
    headers: { authorization: `Bearer ${who.token}`, ...init.headers },
  });
  return { answer, bytes: Buffer.from(await answer.arrayBuffer()) };
}
export const asJson = (body: object): RequestInit => ({
  method: 'POST',
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify(body),
});

export const actsOf = (restore: number) =>
  world.storage.rows<{ action: string; result: string; details: Record<string, unknown> }>(
    `SELECT action, result, details FROM acts WHERE (details->>'restore')::bigint = $1
        OR details->>'reason' LIKE 'restore ' || $1 || ' to%' ORDER BY number`,
    [restore],
  );

/** A fetch whose reader takes nothing until it is told to. */
export function opened(id: number, who: Holder = holder, over: ClientHttp2Session = session): ClientHttp2Stream {
  const stream = over.request({ ':path': `/v1/restores/${id}/content`, authorization: `Bearer ${who.token}` });
  stream.on('error', () => {});
  stream.pause();
  return stream;
}
export const begun = (id: number, who: Holder = holder) => until(async () => (await show(id, who)).done.sentBytes > 0);
export const hasEnded = (id: number, state: string, who: Holder = holder) =>
  until(async () => (await show(id, who)).state === state, 10_000);
export const closed = (stream: ClientHttp2Stream) => until(() => stream.closed, 10_000);
