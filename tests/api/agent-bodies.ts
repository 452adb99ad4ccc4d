/** The requests of an agent that have a body, rightly made, from a device of the world: to be changed by the fuzzer. */
import { createHash, randomBytes } from 'node:crypto';
import { sha256 } from '../../protocol/hashes.ts';
import { described } from '../helpers/route-calls.ts';
import { newRun } from '../helpers/storage.ts';
import type { ApiWorld } from './world.ts';

export interface AgentBody {
  name: string;
  method: string;
  path: string;
  type: string;
  token: string;
  bytes: Buffer;
}

export async function agentBodies(world: ApiWorld): Promise<AgentBody[]> {
  const token = randomBytes(32).toString('base64url');
  const { guid, vault, archive } = world.places.own;
  const tokenSha256 = createHash('sha256').update(Buffer.from(token, 'base64url')).digest();
  await world.storage.rows('UPDATE devices SET token_sha256 = $2 WHERE guid = $1', [guid, tokenSha256]);
  const run = await newRun(world.storage, { vault, archive });
  const content = randomBytes(1_000);
  const target = { archive, run, hash: sha256(content), content, guid };
  const person = { registrationKey: 'ABCD-ABCD-ABCD-ABCD', userName: 'ann', password: 'not hers' };
  return Object.entries(described).flatMap(([name, { call }]) => {
    const { path, type, body } = call(target, person);
    if (!body || !type) return [];
    return [{ name, method: name.split(' ')[0]!, path, type, token, bytes: body }];
  });
}
