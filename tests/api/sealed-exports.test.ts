/** Sealed exports over HTTP: of every level, with no key opened for them, and with no more of the keys than whoever asks may have. */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import {
  decodeExportMessage,
  type ExportHeader,
  exportFrameHeadBytes,
  exportMagic,
  readExportFrameHead,
} from '../../protocol/sealed-export.ts';
import { keyCheck, wrapKey } from '../../protocol/sealing/index.ts';
import { vaultKeyContext } from '../../server/directory/keys/key-service.ts';
import { key } from '../../server/restoring/testing.ts';
import {
  actsOf,
  asJson,
  closeWorld,
  engine,
  fetched,
  holder,
  keyOf,
  openWorld,
  plan,
  planned,
  setting,
  show,
  text,
  world,
} from './restoring.ts';
import type { Holder } from './world.ts';

let wrapped: Buffer;
beforeAll(async () => {
  await openWorld();
  wrapped = await wrapKey(key, 'the archive password', { generation: 1, memoryKiB: 19 * 1024, passes: 2 });
});
afterAll(closeWorld);

const asExport = { format: 'export' };
const vaultAt = {
  standard: async () =>
    keyOf(engine.ref.vault, 'standard', await world.directory.keys.seal(key, vaultKeyContext(holder.user, 1))),
  password: () => keyOf(engine.ref.vault, 'password', wrapped),
  custom: () => keyOf(engine.ref.vault, 'custom', keyCheck(key)),
};

/** The second frame, behind the first bytes. */
function headerOf(bytes: Buffer): ExportHeader {
  expect(bytes.subarray(0, exportMagic.byteLength)).toEqual(exportMagic);
  const bodyAt = exportMagic.byteLength + exportFrameHeadBytes;
  const head = readExportFrameHead(bytes.subarray(exportMagic.byteLength, bodyAt))!;
  expect(head.name).toBe('header');
  return decodeExportMessage('header', bytes.subarray(bodyAt, bodyAt + head.bytes));
}

async function exported(who: Holder = holder, more: object = {}) {
  const id = await planned(['/d'], { ...asExport, ...more }, who);
  const { answer, bytes } = await fetched(id, who);
  expect([answer.status, answer.headers.get('content-type')]).toEqual([200, 'application/vnd.holdfast.export']);
  expect(answer.headers.get('content-disposition')).toMatch(/\.holdfast-export/);
  return { id, bytes, header: headerOf(bytes) };
}

test.each([
  ['standard', () => [{ level: 'standard', generation: 1 }]],
  ['password', () => [{ level: 'password', generation: 1, wrapped }]],
  ['custom', () => [{ level: 'custom', generation: 1, check: keyCheck(key) }]],
] as const)('at level %s it is made of the archive, and no key is opened', async (level, keys) => {
  await vaultAt[level]();
  const { id, bytes, header } = await exported();
  expect(header).toMatchObject({ ...engine.ref, guid: holder.guid, deleted: false, keys: keys() });
  expect(await show(id)).toMatchObject({
    state: 'completed',
    format: 'export',
    done: { files: 3, leftOut: 0, sentBytes: bytes.byteLength },
  });
  const acts = await actsOf(id);
  expect(acts.map(({ action }) => action)).toEqual(['restore.plan', 'restore.begin', 'restore.end']);
  expect(acts[1]!.details).toMatchObject({ format: 'export' });
  expect(bytes.includes(key)).toBe(false);
});

test('somebody else gets no key to try passwords on; the check of the user’s own key is for everybody', async () => {
  const admin = await world.person('Customer Cloud Admin', { name: 'exporting' });
  const reason = { reason: 'a test' };
  await vaultAt.password();
  const { header, bytes } = await exported(admin, reason);
  expect(header.keys).toEqual([{ level: 'password', generation: 1 }]);
  expect(bytes.includes(wrapped.subarray(32))).toBe(false);
  await vaultAt.custom();
  expect((await exported(admin, reason)).header.keys).toEqual([
    { level: 'custom', generation: 1, check: keyCheck(key) },
  ]);
});

test('a password is not taken for it', async () => {
  await vaultAt.password();
  const id = await planned(['/d'], asExport);
  const { answer, bytes } = await fetched(id, holder, asJson({ password: 'the archive password' }));
  expect([answer.status, JSON.parse(bytes.toString())]).toMatchObject([400, { field: 'password' }]);
  expect(await show(id)).toMatchObject({ state: 'broken' });
  expect((await fetched(id)).answer.status).toBe(200);
});

test('it is bound by the same limits, at their edge', async () => {
  await vaultAt.custom();
  const bytes = text('small').length;
  await setting('webRestore.userBytesMax', bytes - 1);
  expect((await plan(['/d/small'], asExport)).status).toBe(403);
  await setting('webRestore.userBytesMax', bytes);
  expect((await plan(['/d/small'], asExport)).status).toBe(201);
  await setting('webRestore.userBytesMax', null);
});
