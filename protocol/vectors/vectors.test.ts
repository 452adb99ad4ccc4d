/**
 * The published vectors, held against the second implementation (so that they follow from the text) and against the
 * real one (so that it still does what was published).
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import { ListCutter } from '../lists.ts';
import {
  chunksOf,
  deriveKeys,
  keyCheck,
  open,
  openAsync,
  padmeLength,
  SealError,
  type SealedType,
  seal,
  unwrapKey,
  unwrapKeyInKey,
  verifyVersionMac,
  versionMac,
  wrapKey,
  wrapKeyInKey,
} from '../sealing/index.ts';
import * as second from './second-implementation.ts';

const read = (name: string) => JSON.parse(readFileSync(new URL(name, import.meta.url), 'utf8'));
const bytes = (hex: string) => Buffer.from(hex, 'hex');
const sha256 = (data: Uint8Array) => createHash('sha256').update(data).digest('hex');
const typeNumbers: Record<SealedType, number> = { block: 1, attributes: 2, manifest: 3 };

/** The reason of the SealError a call ends in; anything else it throws, or nothing, fails the test. */
async function reasonOf(call: () => unknown): Promise<string> {
  try {
    await call();
  } catch (error) {
    if (error instanceof SealError) return error.reason;
    throw error;
  }
  throw new Error('was not refused');
}

describe('keys.json', () => {
  for (const item of read('keys.json').cases) {
    const vaultKey = bytes(item.vaultKey);
    test(`second implementation, vault key ${item.vaultKey.slice(0, 8)}`, () => {
      expect(second.hkdf(vaultKey, 'holdfast v1 block enc', 32).toString('hex')).toBe(item.encryption);
      expect(second.hkdf(vaultKey, 'holdfast v1 block mac', 32).toString('hex')).toBe(item.mac);
      expect(second.hkdf(vaultKey, 'holdfast v1 version mac', 32).toString('hex')).toBe(item.versionMac);
      expect(second.hkdf(vaultKey, 'holdfast v1 gear table', 1024).toString('hex')).toBe(item.gearTable);
      expect(second.hkdf(vaultKey, 'holdfast v1 key check', 16).toString('hex')).toBe(item.keyCheck);
    });
    test(`deriveKeys, vault key ${item.vaultKey.slice(0, 8)}`, () => {
      const keys = deriveKeys(vaultKey);
      expect(keys.encryption.export().toString('hex')).toBe(item.encryption);
      expect(keys.mac.export().toString('hex')).toBe(item.mac);
      expect(keys.versionMac.export().toString('hex')).toBe(item.versionMac);
      expect(Array.from(keys.gear, (value) => (value >>> 0).toString(16).padStart(8, '0')).join('')).toBe(
        item.gearTable,
      );
      expect(keyCheck(vaultKey).toString('hex')).toBe(item.keyCheck);
    });
  }
});

describe('seal.json', () => {
  const { cases, failures, padme } = read('seal.json');
  const asOf = (item: { type: SealedType; vault: number; generation: number }) => ({
    type: typeNumbers[item.type],
    vault: item.vault,
    generation: item.generation,
  });

  for (const item of cases) {
    const vaultKey = bytes(item.vaultKey);
    const plain = second.plainOf(item.plain);
    /** Sealed from the vector's own data, so that no release of zstd has a say. */
    const sealed = second.sealPayload(
      vaultKey,
      second.header(asOf(item)),
      second.payload({
        compression: item.compression,
        plainBytes: plain.length,
        data: item.compression === 1 ? bytes(item.data) : plain,
        paddingBytes: item.paddingBytes,
      }),
    );

    test(`second implementation: ${item.name}`, () => {
      expect(sealed.subarray(16, 48).toString('hex')).toBe(item.siv);
      const { key, nonce } = second.keyAndNonce(vaultKey, bytes(item.siv));
      expect([key.toString('hex'), nonce.toString('hex')]).toEqual([item.key, item.nonce]);
      expect([sealed.length, sha256(sealed)]).toEqual([item.sealedBytes, item.sealedSha256]);
      if (item.sealed) expect(sealed.toString('hex')).toBe(item.sealed);
      expect(second.openSealed(vaultKey, asOf(item), sealed).equals(plain)).toBe(true);
    });
    test(`seal and open: ${item.name}`, async () => {
      const keys = deriveKeys(vaultKey);
      expect(open(keys, item, sealed).equals(plain)).toBe(true);
      expect((await openAsync(keys, item, sealed)).equals(plain)).toBe(true);
      const padding = item.name.includes('padded');
      const ours = seal(keys, { type: item.type, vault: item.vault, generation: item.generation, padding }, plain);
      if (item.compression === 0) expect(sha256(ours)).toBe(item.sealedSha256);
      expect(second.openSealed(vaultKey, asOf(item), ours).equals(plain)).toBe(true);
    });
  }

  for (const item of failures) {
    test(`refused: ${item.name}`, async () => {
      const keys = deriveKeys(bytes(item.vaultKey));
      expect(await reasonOf(() => open(keys, item.expected, bytes(item.sealed)))).toBe(item.reason);
      expect(await reasonOf(() => openAsync(keys, item.expected, bytes(item.sealed)))).toBe(item.reason);
    });
  }

  test('padme', () => {
    for (const [length, padded] of padme)
      expect([length, second.padme(length), padmeLength(length)]).toEqual([length, padded, padded]);
  });
});

describe('chunks.json', () => {
  for (const item of read('chunks.json').cases) {
    const plain = second.plainOf(item.plain);
    test(`second implementation: ${item.name}`, () => {
      expect(second.cutPoints(bytes(item.vaultKey), item.sizes, plain)).toEqual(item.ends);
    });
    test(`chunksOf: ${item.name}`, async () => {
      async function* source() {
        for (let at = 0; at < plain.length; at += 1_000_003) yield plain.subarray(at, at + 1_000_003);
      }
      const ends: number[] = [];
      for await (const chunk of chunksOf(source(), deriveKeys(bytes(item.vaultKey)).gear, item.sizes))
        ends.push((ends.at(-1) ?? 0) + chunk.length);
      expect(ends).toEqual(item.ends);
    });
  }
});

describe('lists.json', () => {
  for (const item of read('lists.json').cases) {
    const hashes = second.hashesOf(item.hashes);
    test(`second implementation: ${item.name}`, () => {
      const ends = second.listEnds(item.sizes, hashes);
      expect(ends).toEqual(item.ends);
      expect(ends.map((end, i) => sha256(Buffer.concat(hashes.slice(ends[i - 1] ?? 0, end))))).toEqual(item.lists);
    });
    test(`ListCutter: ${item.name}`, () => {
      const cutter = new ListCutter(item.sizes);
      const lists = hashes.flatMap((hash) => cutter.add(hash) ?? []);
      const last = cutter.finish();
      if (last) lists.push(last);
      expect(lists.map((list) => list.hash.toString('hex'))).toEqual(item.lists);
      expect(Buffer.concat(lists.map((list) => list.blocks))).toEqual(Buffer.concat(hashes));
    });
  }
});

describe('version-mac.json', () => {
  const { vaultKey, cases } = read('version-mac.json');
  for (const item of cases) {
    test(item.name, () => {
      const version = { ...item.version };
      for (const field of ['path', 'attributes', 'blocks', 'lists']) version[field] = bytes(version[field]);
      expect(second.versionMac(bytes(vaultKey), item.archive, version).toString('hex')).toBe(item.mac);
      expect(versionMac(deriveKeys(bytes(vaultKey)), item.archive, version).toString('hex')).toBe(item.mac);
      expect(verifyVersionMac(deriveKeys(bytes(vaultKey)), item.archive, { ...version, mac: bytes(item.mac) })).toBe(
        true,
      );
    });
  }
});

describe('key-in-key.json', () => {
  const { cases, failures } = read('key-in-key.json');
  for (const { name, vaultKey, wrappingKey, generation, by, record } of cases) {
    test(name, () => {
      const of = { generation, by };
      expect(second.wrapKeyInKey(bytes(vaultKey), bytes(wrappingKey), of).toString('hex')).toBe(record);
      expect(wrapKeyInKey(bytes(vaultKey), bytes(wrappingKey), of).toString('hex')).toBe(record);
      expect(unwrapKeyInKey(bytes(record), bytes(wrappingKey), of).toString('hex')).toBe(vaultKey);
    });
  }
  for (const { name, record, wrappingKey, generation, by, reason } of failures) {
    test(`refused: ${name}`, async () => {
      expect(await reasonOf(() => unwrapKeyInKey(bytes(record), bytes(wrappingKey), { generation, by }))).toBe(reason);
    });
  }
});

describe('key-wrap.json', () => {
  const { cases, failures } = read('key-wrap.json');
  for (const item of cases) {
    test(item.name, async () => {
      const unwrapped = second.unwrapKey(bytes(item.record), item.password);
      expect([unwrapped.derived.toString('hex'), unwrapped.vaultKey.toString('hex')]).toEqual([
        item.derived,
        item.vaultKey,
      ]);
      const { generation, memoryKiB, passes, parallelism } = item;
      const record = await wrapKey(bytes(item.vaultKey), item.password, {
        generation,
        memoryKiB,
        passes,
        parallelism,
        salt: bytes(item.salt),
      });
      expect(record.toString('hex')).toBe(item.record);
      expect((await unwrapKey(record, item.password, { generation })).toString('hex')).toBe(item.vaultKey);
    });
  }
  for (const item of failures) {
    test(`refused: ${item.name}`, async () => {
      expect(await reasonOf(() => unwrapKey(bytes(item.record), item.password))).toBe(item.reason);
    });
  }
});
