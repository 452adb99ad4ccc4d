/** For tests of staged restores over HTTP: a worker as a call, and what it leaves in rows and bucket. */
import { afterEach, expect } from '@jest/globals';
import { deleteStaged } from '../../server/directory/restores/staging/delete-staged.ts';
import type { StagingParts } from '../../server/directory/restores/staging/stage.ts';
import { type StageResult, stageOne, startDue } from '../../server/directory/restores/staging/stage-due.ts';
import type { Fence } from '../../storage/archive/checking/fence.ts';
import { newHeldFence } from '../helpers/storage.ts';
import { holder, openWorld, planned, world } from './restoring.ts';

export let fence: Fence;
export let parts: StagingParts;
const faults: unknown[] = [];
export const never = new AbortController().signal;

export async function openStagingWorld(): Promise<void> {
  await openWorld();
  fence = await newHeldFence(world.storage);
  const { storage, directory } = world;
  const bounds = { bytesMax: 1e9, tenantBytesMax: 1e9, personBytesMax: 1e9 };
  const settings = { ...bounds, keptMs: 3_600_000, windowBytes: 4_000_000, checkEveryMs: 50, partFrames: 4 };
  parts = { storage, directory, fence, settings, onFault: (error) => faults.push(error) };
}

/** No test is to leave a fault that nobody was told of. */
export function expectNoFaults(): void {
  afterEach(() => {
    expect(faults.splice(0)).toEqual([]);
  });
}

export const sql = <Row = Record<string, never>>(text: string, values: unknown[] = []): Promise<Row[]> =>
  world.storage.rows<Row>(text, values);
export const stagePlanned = (paths: unknown[], more: object = {}, who = holder) =>
  planned(paths, { kind: 'staged', ...more }, who);
/** As the sweep has jobs do it. */
export async function stageAll(): Promise<StageResult> {
  const due: number[] = [];
  await startDue(world.storage.database, async (restore) => void due.push(restore));
  const total = { staged: 0, broken: 0, waiting: 0 };
  for (const restore of due) {
    const one = await stageOne(parts, restore, never);
    for (const name of ['staged', 'broken', 'waiting'] as const) total[name] += one[name];
  }
  return total;
}

/** Planned, and made by a worker. */
export async function staged(paths: unknown[], more: object = {}, who = holder): Promise<number> {
  const id = await stagePlanned(paths, more, who);
  expect(await stageOne(parts, id, never)).toEqual({ staged: 1, broken: 0, waiting: 0 });
  return id;
}
export const range = (value: string, more: Record<string, string> = {}): RequestInit => ({
  headers: { range: value, ...more },
});
export const problemOf = (bytes: Buffer) =>
  JSON.parse(bytes.toString()) as { code: string; detail: string; percent?: number };
export const stagedRows = (id: number) =>
  sql<{ state: string; attempt: string; hasKey: boolean; reserved: number }>(
    `SELECT state, attempt, key_record IS NOT NULL AS "hasKey", reserved_bytes AS reserved FROM staged_archives WHERE restore_id = $1 ORDER BY staged_id`,
    [id],
  );
export async function objectsOf(id: number): Promise<string[]> {
  const { storage } = world;
  const { objects } = await storage.objects.list(`${storage.catalogId}/staging/${id}.`, { limit: 1_000 });
  return objects.map(({ key }) => key);
}
export const clean = (lateMs = 0) => deleteStaged(world.storage, fence, { lateMs });
export const link = (id: number, who = holder, body: object = {}) =>
  world.ask('POST', `/v1/restores/${id}/link`, { token: who.token, body });
export async function linkTo(id: number, who = holder, body: object = {}): Promise<string> {
  const { status, json, text } = await link(id, who, body);
  if (status !== 201) throw new Error(`${status} ${text}`);
  return json.url as string;
}
export const getLink = async (url: string, init: RequestInit = {}) => {
  const answer = await fetch(url, init);
  return { answer, bytes: Buffer.from(await answer.arrayBuffer()) };
};
