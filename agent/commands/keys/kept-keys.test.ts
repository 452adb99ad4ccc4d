import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from '@jest/globals';
import type { KeptKey } from '../../../protocol/messages.ts';
import { keyCheck, wrapKey, wrapKeyInKey } from '../../../protocol/sealing/index.ts';
import { keysOf, type Registration, readRegistration, withKeys, writeRegistration } from '../../state/registration.ts';
import { missingOf, openKeptKeys, requireNewestKey, unlocked } from './kept-keys.ts';

const cheap = { memoryKiB: 19 * 1024, passes: 2, parallelism: 1 };
const [first, second, own] = [randomBytes(32), randomBytes(32), randomBytes(32)];
const password = 'the right one';
const secrets = { archivePassword: async () => password, customKey: async () => own };

const registration: Registration = {
  url: 'https://localhost:1',
  certificateSha256: null,
  userName: 'u',
  guid: '5',
  deviceName: 'd',
  token: 't',
  vault: 1,
  archive: 1,
  level: 'standard',
  keyGeneration: 1,
  vaultKey: first,
};

const standard: KeptKey[] = [{ level: 'standard', generation: 1 }];
let atPassword: KeptKey[];
const atCustom: KeptKey[] = [
  { level: 'custom', generation: 1, wrapped: wrapKeyInKey(first, own, { generation: 1, by: 3 }) },
  { level: 'custom', generation: 2, wrapped: wrapKeyInKey(second, own, { generation: 2, by: 3 }) },
  { level: 'custom', generation: 3, check: keyCheck(own) },
];
const wrapped = async (key: Buffer, generation: number): Promise<KeptKey> => ({
  level: 'password',
  generation,
  wrapped: await wrapKey(key, password, { generation, ...cheap }),
});
beforeAll(async () => {
  atPassword = [await wrapped(first, 1), await wrapped(second, 2)];
});

describe('a device that learns the keys', () => {
  test('has all of them, the newest to seal with', async () => {
    const raised = await unlocked(registration, atPassword, secrets);
    expect(raised).toEqual({
      ...registration,
      level: 'password',
      keyGeneration: 2,
      vaultKey: second,
      olderKeys: [{ generation: 1, key: first }],
    });
    const again = await unlocked(raised, atCustom, secrets);
    expect([again.level, again.keyGeneration, again.vaultKey]).toEqual(['custom', 3, own]);
    expect(keysOf(again).map(({ key }) => key)).toEqual([first, second, own]);
    // One that was away for both.
    expect(keysOf(await unlocked(registration, atCustom, secrets))).toEqual(keysOf(again));
  });

  test('lacks what it does not have, older ones too', async () => {
    expect(missingOf(registration, standard)).toEqual([]);
    expect(missingOf(registration, atPassword)).toEqual([atPassword[1]]);
    // Registered by an agent that knew one generation only.
    expect(missingOf({ ...registration, keyGeneration: 2, vaultKey: second }, atPassword)).toEqual([atPassword[0]]);
  });

  test('asks for nothing that the level does not need', async () => {
    await unlocked(registration, atPassword, { archivePassword: secrets.archivePassword });
    await unlocked(registration, atCustom, { customKey: secrets.customKey });
    await expect(unlocked(registration, atPassword, {})).rejects.toThrow('archive password');
    await expect(unlocked(registration, atCustom, {})).rejects.toThrow('your own key');
  });
});

describe('a server is not believed', () => {
  test('that says a lower level, or none', async () => {
    const raised = withKeys(registration, 'custom', keysOf(registration));
    await expect(unlocked(raised, atPassword, secrets)).rejects.toThrow('never lowered');
    const known: KeptKey[] = [{ level: 'standard', generation: 2, key: randomBytes(32) }];
    await expect(unlocked({ ...registration, level: 'password' }, known, secrets)).rejects.toThrow('never lowered');
    await expect(unlocked(registration, [], secrets)).rejects.toThrow('never lowered');
  });

  test('that has another key of a generation than this device, or leaves it out', async () => {
    const other = [await wrapped(randomBytes(32), 1), atPassword[1]!];
    await expect(unlocked(registration, other, secrets)).rejects.toThrow('another key of generation 1');
    await expect(unlocked(registration, [atPassword[1]!], secrets)).rejects.toThrow('another key of generation 1');
  });

  test.each<[string, () => KeptKey[]]>([
    ['no generation', () => []],
    ['two levels', () => [standard[0]!, atPassword[1]!]],
    ['generations out of order', () => [atPassword[1]!, atPassword[0]!]],
    ['one generation twice', () => [atPassword[1]!, atPassword[1]!]],
    ['an own key without its check', () => atCustom.slice(0, 2)],
    ['a check where a record should be', () => [{ ...atCustom[2]!, generation: 1 }, atCustom[2]!]],
    ['a key in escrow that is not there', () => standard],
  ])('that keeps %s', async (_, kept) => {
    await expect(openKeptKeys(kept(), secrets)).rejects.toThrow('do not go together');
  });

  test('that hands back the record of an earlier generation, or another check', async () => {
    const earlier = [atPassword[0]!, { ...atPassword[0]!, generation: 2 }];
    await expect(openKeptKeys(earlier, secrets)).rejects.toMatchObject({ reason: 'wrong_generation' });
    const swapped: KeptKey[] = [{ ...atCustom[1]!, generation: 1 }, atCustom[2]!];
    await expect(openKeptKeys(swapped, secrets)).rejects.toMatchObject({ reason: 'wrong_generation' });
    const check: KeptKey[] = [{ level: 'custom', generation: 3, check: randomBytes(16) }];
    await expect(openKeptKeys(check, secrets)).rejects.toThrow('not the one this vault was made with');
    await expect(openKeptKeys(atPassword, { archivePassword: async () => 'another' })).rejects.toMatchObject({
      reason: 'wrong_password',
    });
  });
});

test('before a run, of a server that was set back to before the raise', async () => {
  const raised = { ...registration, level: 'password', keyGeneration: 2 } as const;
  const self = async () => ({ vaultKeys: standard }) as never;
  await expect(requireNewestKey({ self }, raised)).rejects.toThrow('raise --to password');
});

test.each([
  ['what this device has', 1, null],
  ['a later one', 2, /level 'password'.*archive password.*unlock/],
  ['nothing, being older than this agent', 0, null],
])('before a run, of a server that keeps %s', async (_, generations, refused) => {
  const self = async () => ({ vaultKeys: atPassword.slice(0, generations) }) as never;
  const asked = requireNewestKey({ self }, registration);
  if (refused) await expect(asked).rejects.toThrow(refused);
  else await asked;
});

describe('the registration', () => {
  test('keeps all keys in its file, and one that was written before there could be several is read', () => {
    const home = mkdtempSync(join(tmpdir(), 'holdfast-keys-'));
    try {
      const keys = [
        { generation: 1, key: first },
        { generation: 2, key: second },
      ];
      for (const each of [registration, withKeys(registration, 'password', keys)]) {
        writeRegistration(home, each);
        expect(readRegistration(home)).toEqual(each);
      }
      const file = join(home, 'registration.json');
      const document = JSON.parse(readFileSync(file, 'utf8'));
      for (const olderKeys of [
        5,
        [5],
        [{ generation: 1 }],
        [{ generation: 'x', key: first.toString('base64') }],
        [{ generation: 1, key: 'AAAA' }],
      ]) {
        writeFileSync(file, JSON.stringify({ ...document, olderKeys }));
        expect(() => readRegistration(home)).toThrow('olderKeys');
      }
    } finally {
      rmSync(home, { recursive: true });
    }
  });
});
