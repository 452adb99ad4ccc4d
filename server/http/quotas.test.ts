/** A quota that is used up, as a device is told of it over HTTP, on the real engine. */
import { randomBytes } from 'node:crypto';
import type { ClientHttp2Session } from 'node:http2';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { sha256 } from '../../protocol/hashes.ts';
import * as messages from '../../protocol/messages.ts';
import { encodeUpload } from '../../protocol/upload.ts';
import { decodeMessage, encodeMessage, msgpackType } from '../../protocol/wire.ts';
import { type TestStorage, testStorage } from '../../tests/helpers/storage.ts';
import { openDirectory } from '../directory/directory.ts';
import { localKeyService } from '../directory/keys/local-keys.ts';
import { insertOrganization, insertTenant } from '../directory/organizations/inserting.ts';
import { newRegistrationKey } from '../directory/organizations/registration-key.ts';
import { insertUser } from '../directory/users/people.ts';
import { type Answer, h2, problem, request, startTestServer, type TestServer } from './testing.ts';

let storage: TestStorage;
let server: TestServer;
let session: ClientHttp2Session;
let token: string;
let top: number;

beforeAll(async () => {
  storage = await testStorage();
  const { database } = storage;
  const keys = localKeyService([randomBytes(32)]);
  const directory = openDirectory({ database, keys, passwordHashesMax: 2, signInsPerMinute: 5 });
  server = await startTestServer({ storage, directory });
  session = await h2(server);
  const registrationKey = newRegistrationKey();
  const passwordHash = await directory.passwords.hash('password');
  await database.transaction(async (tx) => {
    const tenantId = await insertTenant(tx, 'tenant');
    top = await insertOrganization(tx, { tenantId, parentId: null, name: 'Top', registrationKey });
    await insertUser(tx, { tenantId, organizationId: top, name: 'ann', passwordHash });
  });
  const device = { name: 'device', platform: 'linux', agentVersion: '1' };
  const sent = { registrationKey, userName: 'ann', password: 'password', device, vaultKey: { level: 'standard' } };
  const answer = await send('POST', '/v1/register', msgpackType, encodeMessage(sent));
  token = decodeMessage(messages.RegisterAnswer, answer.body).token;
  await storage.rows(
    `INSERT INTO organization_settings (tenant_id, organization_id, name, value) SELECT tenant_id, organization_id, 'quotas.bytes', '1000' FROM organizations`,
  );
});

afterAll(async () => {
  session?.destroy();
  await server?.shutDown({ leaveMs: 0, drainMs: 1_000 });
  await storage?.close();
});

function send(method: string, path: string, type: string, body: Uint8Array): Promise<Answer> {
  const described = { 'content-type': type, 'content-length': body.byteLength };
  const authorization = token ? { authorization: `Bearer ${token}` } : {};
  return request(session, { ':method': method, ':path': path, ...authorization, ...described }, body);
}

const upload = (block: Buffer): Promise<Answer> => {
  const { chunks } = encodeUpload([{ hash: sha256(block), bytes: block }]);
  return send('POST', '/v1/blocks', 'application/vnd.holdfast.upload', Buffer.concat(chunks));
};
const put = (block: Buffer): Promise<Answer> =>
  send('PUT', `/v1/blocks/${sha256(block).toString('hex')}`, 'application/octet-stream', block);

test.each([
  ['an upload', upload],
  ['a single block', put],
])('%s over quota is answered 507, says whose quota it is, and takes what fits', async (_name, store) => {
  const [{ used }] = (await storage.rows<{ used: number }>(
    'SELECT coalesce(sum(byte_length), 0)::bigint AS used FROM blocks',
  )) as [{ used: number }];
  const refused = await store(randomBytes(1_001 - used));
  expect(refused.status).toBe(507);
  expect(problem(refused)).toMatchObject({
    code: 'quota_exceeded',
    quota: 'organization',
    organization: { id: top, name: 'Top' },
    limitBytes: 1_000,
    usedBytes: used,
  });
  expect((await store(randomBytes(400))).status).toBe(200);
  expect(await storage.rows('SELECT 1 FROM objects')).toHaveLength(used === 0 ? 1 : 2);
});
