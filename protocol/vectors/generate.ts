/**
 * Writes the test vectors beside it: `node protocol/vectors/generate.ts`. They are published: a change of any value
 * is a change of the format, except that another release of zstd may compress to other bytes (which open the same).
 */
import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { zstdCompressSync } from 'node:zlib';
import { listing } from '../limits.ts';
import { ListCutter } from '../lists.ts';
import {
  createChunker,
  deriveKeys,
  keyCheck,
  type MacVersion,
  padmeLength,
  type SealedType,
  seal,
  versionMac,
  wrapKey,
  wrapKeyInKey,
} from '../sealing/index.ts';
import * as second from './second-implementation.ts';
import type { PlainSource } from './second-implementation.ts';

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest();
const named = (name: string) => sha256(Buffer.from(name));
const typeNumbers = { block: 1, attributes: 2, manifest: 3 } as const;
const plainNote =
  'plain: {hex}; {text, times}: the UTF-8 text repeated; {zeros}: that many zero bytes; {stream, bytes}: the first bytes of the AES-256-CTR keystream with key = SHA-256(stream) and an initial counter block of 16 zero bytes.';

function write(name: string, content: object): void {
  writeFileSync(new URL(name, import.meta.url), `${JSON.stringify(content, null, 1)}\n`);
}

// --- keys -----------------------------------------------------------------------------------------------------------

const vaultKey = Buffer.from(Array.from({ length: 32 }, (_, index) => index));
const otherKey = named('holdfast test vault key 2');

function keyCase(key: Buffer): object {
  const keys = deriveKeys(key);
  const gear = Buffer.alloc(1024);
  keys.gear.forEach((value, index) => gear.writeInt32BE(value, index * 4));
  return {
    vaultKey: hex(key),
    encryption: hex(keys.encryption.export()),
    mac: hex(keys.mac.export()),
    versionMac: hex(keys.versionMac.export()),
    gearTable: hex(gear),
    keyCheck: hex(keyCheck(key)),
  };
}
write('keys.json', {
  about: 'Derivation of all keys from a vault key. gearTable: 256 big-endian 32-bit numbers.',
  cases: [keyCase(vaultKey), keyCase(otherKey)],
});

// --- seal -----------------------------------------------------------------------------------------------------------

interface SealCase {
  name: string;
  key?: Buffer;
  type?: SealedType;
  vault?: number;
  generation?: number;
  padding?: boolean;
  plain: PlainSource;
}
const text: PlainSource = { text: 'a stitch in time saves nine; ', times: 40 };
const sealCases: SealCase[] = [
  { name: 'empty', plain: { hex: '' } },
  { name: 'one byte', plain: { hex: '2a' } },
  { name: 'compressible, but too short to try', plain: { zeros: 127 } },
  { name: 'compressible, just long enough', plain: { zeros: 128 } },
  { name: 'text', plain: text },
  { name: 'text in another vault', plain: text, vault: 8 },
  { name: 'text under another generation', plain: text, generation: 2 },
  { name: 'text with another vault key', plain: text, key: otherKey },
  { name: 'text as a manifest', plain: text, type: 'manifest' },
  { name: 'text, padded', plain: text, padding: true },
  { name: 'incompressible', plain: { stream: 'incompressible', bytes: 1000 } },
  { name: 'incompressible, padded', plain: { stream: 'incompressible', bytes: 1000 }, padding: true },
  { name: 'empty, padded', plain: { hex: '' }, padding: true },
  { name: 'attributes', plain: { text: '{"mode":33188,"uid":1000,"gid":1000}', times: 1 }, type: 'attributes' },
  {
    name: 'attributes, padded',
    plain: { text: '{"mode":33188,"uid":1000,"gid":1000}', times: 1 },
    type: 'attributes',
    padding: true,
  },
  {
    name: 'largest vault and generation',
    plain: { hex: 'ff' },
    vault: Number.MAX_SAFE_INTEGER,
    generation: 2 ** 32 - 1,
  },
  { name: '1 MiB of zeros', plain: { zeros: 1 << 20 } },
  { name: '1 MiB incompressible', plain: { stream: '1 MiB incompressible', bytes: 1 << 20 } },
  { name: '1 MiB incompressible, padded', plain: { stream: '1 MiB incompressible', bytes: 1 << 20 }, padding: true },
];

function sealCase({
  name,
  key = vaultKey,
  type = 'block',
  vault = 7,
  generation = 1,
  padding = false,
  plain: source,
}: SealCase): object {
  const plain = second.plainOf(source);
  const sealed = seal(deriveKeys(key), { type, vault, generation, padding }, plain);
  const siv = sealed.subarray(16, 48);
  const { key: blockKey, nonce } = second.keyAndNonce(key, siv);
  const small = sealed.byteLength <= 2048;
  const { compression, data, paddingBytes } = payloadOf(key, sealed);
  return {
    name,
    vaultKey: hex(key),
    type,
    vault,
    generation,
    plain: source,
    compression,
    ...(compression === 1 ? { data: hex(data) } : {}),
    paddingBytes,
    siv: hex(siv),
    key: hex(blockKey),
    nonce: hex(nonce),
    sealedBytes: sealed.byteLength,
    sealedSha256: hex(sha256(sealed)),
    ...(small ? { sealed: hex(sealed) } : {}),
  };
}

/** The payload in the clear, through the cipher run once more (GCM is its own inverse but for the tag). */
function payloadOf(key: Buffer, sealed: Buffer): { compression: number; data: Buffer; paddingBytes: number } {
  const again = second.sealPayload(key, sealed.subarray(0, 16), sealed.subarray(48, -16), sealed.subarray(16, 48));
  const content = again.subarray(48, -16);
  const dataBytes = content.readUInt32BE(5);
  return {
    compression: content[0]!,
    data: content.subarray(9, 9 + dataBytes),
    paddingBytes: content.byteLength - 9 - dataBytes,
  };
}

const as = { type: typeNumbers.block, vault: 7, generation: 1 };
const head = second.header(as);
const good = seal(deriveKeys(vaultKey), { type: 'block', vault: 7, generation: 1 }, second.plainOf(text));
const flipped = (bytes: Buffer, at: number) =>
  Buffer.from(bytes.map((byte, index) => (index === at ? byte ^ 1 : byte)));
const crafted = (parts: Parameters<typeof second.payload>[0]) =>
  second.sealPayload(vaultKey, head, second.payload(parts));
const abc = Buffer.from('abc');
const zeros = zstdCompressSync(Buffer.alloc(100_000));

const failures: { name: string; reason: string; sealed: Buffer; expected?: object; vaultKey?: Buffer }[] = [
  { name: 'no bytes', reason: 'malformed', sealed: Buffer.alloc(0) },
  { name: 'a header alone', reason: 'malformed', sealed: head },
  { name: 'format 2', reason: 'unsupported_format', sealed: Buffer.concat([Buffer.of(2), good.subarray(1)]) },
  { name: 'type 9', reason: 'malformed', sealed: Buffer.concat([good.subarray(0, 1), Buffer.of(9), good.subarray(2)]) },
  { name: 'a reserved byte set', reason: 'malformed', sealed: flipped(good, 3) },
  { name: 'another type expected', reason: 'wrong_type', sealed: good, expected: { type: 'manifest', vault: 7 } },
  { name: 'another vault expected', reason: 'wrong_vault', sealed: good, expected: { type: 'block', vault: 8 } },
  {
    name: 'another generation expected',
    reason: 'wrong_generation',
    sealed: good,
    expected: { type: 'block', vault: 7, generation: 2 },
  },
  { name: 'another vault key', reason: 'not_authentic', sealed: good, vaultKey: otherKey },
  { name: 'generation changed in the header', reason: 'not_authentic', sealed: flipped(good, 7) },
  {
    name: 'type changed in the header, and expected',
    reason: 'not_authentic',
    sealed: Buffer.concat([good.subarray(0, 1), Buffer.of(3), good.subarray(2)]),
    expected: { type: 'manifest', vault: 7 },
  },
  { name: 'a bit of the siv flipped', reason: 'not_authentic', sealed: flipped(good, 20) },
  { name: 'a bit of the ciphertext flipped', reason: 'not_authentic', sealed: flipped(good, 60) },
  { name: 'a bit of the tag flipped', reason: 'not_authentic', sealed: flipped(good, good.byteLength - 1) },
  { name: 'the last byte missing', reason: 'not_authentic', sealed: good.subarray(0, -1) },
  { name: 'a byte more', reason: 'not_authentic', sealed: Buffer.concat([good, Buffer.of(0)]) },
  {
    name: 'encrypted correctly under a siv that is not the MAC',
    reason: 'not_authentic',
    sealed: second.sealPayload(
      vaultKey,
      head,
      second.payload({ compression: 0, plainBytes: 3, data: abc }),
      named('not the MAC'),
    ),
  },
  { name: 'a payload without lengths', reason: 'malformed', sealed: second.sealPayload(vaultKey, head, Buffer.of(0)) },
  { name: 'compression 2', reason: 'bad_payload', sealed: crafted({ compression: 2, plainBytes: 3, data: abc }) },
  {
    name: 'plain length shorter than the data',
    reason: 'bad_payload',
    sealed: crafted({ compression: 0, plainBytes: 2, data: abc }),
  },
  {
    name: 'plain length longer than the data',
    reason: 'bad_payload',
    sealed: crafted({ compression: 0, plainBytes: 4, data: abc }),
  },
  {
    name: 'data length beyond the payload',
    reason: 'bad_payload',
    sealed: second.sealPayload(vaultKey, head, Buffer.concat([Buffer.from('000000000400000004', 'hex'), abc])),
  },
  {
    name: 'padding that is not zero',
    reason: 'bad_payload',
    sealed: second.sealPayload(
      vaultKey,
      head,
      Buffer.concat([second.payload({ compression: 0, plainBytes: 3, data: abc }), Buffer.of(1)]),
    ),
  },
  {
    name: 'plain length beyond the bound',
    reason: 'too_large',
    sealed: crafted({ compression: 1, plainBytes: 17 * 2 ** 20 + 1, data: zeros }),
  },
  {
    name: 'a zstd frame of more than the plain length',
    reason: 'bad_payload',
    sealed: crafted({ compression: 1, plainBytes: 1000, data: zeros }),
  },
  {
    name: 'a zstd frame of less than the plain length',
    reason: 'bad_payload',
    sealed: crafted({ compression: 1, plainBytes: 100_001, data: zeros }),
  },
  {
    name: 'zstd data that is no frame',
    reason: 'bad_payload',
    sealed: crafted({ compression: 1, plainBytes: 1000, data: Buffer.from('no frame') }),
  },
  {
    name: 'a zstd frame cut short',
    reason: 'bad_payload',
    sealed: crafted({ compression: 1, plainBytes: 100_000, data: zeros.subarray(0, -1) }),
  },
  {
    name: 'compressed data no shorter than plain',
    reason: 'bad_payload',
    sealed: crafted({ compression: 1, plainBytes: 3, data: zstdCompressSync(abc) }),
  },
];

write('seal.json', {
  about: `Sealing. ${plainNote} compression 1: data is the zstd frame that was sealed; another implementation need only decompress it. sealed is left out above 2048 bytes. failures: opening must be refused, for this reason.`,
  padme: [0, 1, 2, 3, 4, 8, 9, 15, 16, 17, 100, 1000, 4095, 4097, 65_537, 1_048_585, 16_777_225, 17_825_801].map(
    (length) => [length, padmeLength(length)],
  ),
  cases: sealCases.map(sealCase),
  failures: failures.map(({ name, reason, sealed, expected, vaultKey: key }) => ({
    name,
    reason,
    vaultKey: hex(key ?? vaultKey),
    expected: expected ?? { type: 'block', vault: 7 },
    sealed: hex(sealed),
  })),
});

// --- chunks ---------------------------------------------------------------------------------------------------------

const small = { minBytes: 64, averageBytes: 256, maxBytes: 1024 };
const MiB = 2 ** 20;
const chunkCases = [
  { name: 'small sizes', key: vaultKey, sizes: small, plain: { stream: 'chunks', bytes: 20_000 } },
  { name: 'small sizes, another vault key', key: otherKey, sizes: small, plain: { stream: 'chunks', bytes: 20_000 } },
  { name: 'shorter than the least', key: vaultKey, sizes: small, plain: { stream: 'chunks', bytes: 63 } },
  { name: 'all zeros', key: vaultKey, sizes: small, plain: { zeros: 5000 } },
  {
    name: 'sizes of files up to 4 GiB',
    key: vaultKey,
    sizes: { minBytes: MiB / 4, averageBytes: MiB, maxBytes: 4 * MiB },
    plain: { stream: 'chunks', bytes: 16 * MiB },
  },
  {
    name: 'sizes of larger files',
    key: vaultKey,
    sizes: { minBytes: 2 * MiB, averageBytes: 8 * MiB, maxBytes: 16 * MiB },
    plain: { stream: 'chunks', bytes: 40 * MiB },
  },
];

function chunkCase({ name, key, sizes, plain }: (typeof chunkCases)[number]): object {
  const chunker = createChunker(deriveKeys(key).gear, sizes);
  const ends: number[] = [];
  const take = (chunk: Buffer | null) => chunk !== null && ends.push((ends.at(-1) ?? 0) + chunk.byteLength) > 0;
  chunker.feed(second.plainOf(plain as PlainSource));
  while (take(chunker.next()));
  take(chunker.finish());
  return { name, vaultKey: hex(key), sizes, plain, ends };
}
write('chunks.json', {
  about: `Content-defined cuts. ${plainNote} ends: the offset behind each chunk.`,
  cases: chunkCases.map(chunkCase),
});

// --- lists ----------------------------------------------------------------------------------------------------------

const smallLists = { minBlocks: 4, averageBlocks: 16, maxBlocks: 64 };
const listCases = [
  { name: 'small sizes', sizes: smallLists, hashes: { name: 'block', count: 500 } },
  { name: 'shorter than the least', sizes: smallLists, hashes: { name: 'block', count: 3 } },
  { name: 'one hash again and again', sizes: smallLists, hashes: { name: 'block', count: 200, repeated: true } },
  { name: 'the sizes of files', sizes: listing, hashes: { name: 'block', count: 5_000 } },
];
write('lists.json', {
  about:
    'Lists of hashes. hashes: the SHA-256 of the texts "name 0", "name 1", ... (repeated: "name 0" each time). ends: how many hashes there are up to the end of each list; lists: the names of the lists.',
  cases: listCases.map(({ name, sizes, hashes }) => {
    const cutter = new ListCutter(sizes);
    const lists = second.hashesOf(hashes).flatMap((hash) => cutter.add(hash) ?? []);
    lists.push(...[cutter.finish() ?? []].flat());
    let end = 0;
    return {
      name,
      sizes,
      hashes,
      ends: lists.map((list) => (end += list.blocks.byteLength / 32)),
      lists: lists.map((list) => hex(list.hash)),
    };
  }),
});

// --- version MAC ----------------------------------------------------------------------------------------------------

const file: MacVersion = {
  path: Buffer.from('/home/ada/notes.txt'),
  kind: 'file',
  size: 1_500_000,
  mtime: 1_700_000_000_123,
  attributes: seal(
    deriveKeys(vaultKey),
    { type: 'attributes', vault: 7, generation: 1 },
    Buffer.from('{"mode":33188}'),
  ),
  blocks: Buffer.concat([named('block 1'), named('block 2')]),
  lists: Buffer.alloc(0),
  deleted: false,
};
const none = Buffer.alloc(0);
const versions: { name: string; archive: number; version: MacVersion }[] = [
  { name: 'a file', archive: 12, version: file },
  { name: 'the same file in another archive', archive: 13, version: file },
  {
    name: 'its blocks in another order',
    archive: 12,
    version: { ...file, blocks: Buffer.concat([named('block 2'), named('block 1')]) },
  },
  { name: 'the same hashes as lists', archive: 12, version: { ...file, blocks: none, lists: file.blocks } },
  {
    name: 'a file from before 1970, its name not UTF-8',
    archive: 12,
    version: { ...file, path: Buffer.from('2fff00fe'.replace('00', '80'), 'hex'), mtime: -1 },
  },
  {
    name: 'a folder',
    archive: 12,
    version: { ...file, path: Buffer.from('/home'), kind: 'directory', size: 0, blocks: none },
  },
  {
    name: 'a symlink',
    archive: 12,
    version: { ...file, path: Buffer.from('/home/link'), kind: 'symlink', size: 0, blocks: none },
  },
  { name: 'a deletion', archive: 12, version: { ...file, size: 0, blocks: none, attributes: none, deleted: true } },
];
write('version-mac.json', {
  about: 'MACs of versions. mtime in milliseconds since 1970; byte strings in hex.',
  vaultKey: hex(vaultKey),
  cases: versions.map(({ name, archive, version }) => ({
    name,
    archive,
    version: {
      ...version,
      path: hex(version.path),
      attributes: hex(version.attributes),
      blocks: hex(version.blocks),
      lists: hex(version.lists),
    },
    mac: hex(versionMac(deriveKeys(vaultKey), archive, version)),
  })),
});

// --- key wrap -------------------------------------------------------------------------------------------------------

const salt = named('salt').subarray(0, 16);
const least = { memoryKiB: 19 * 1024, passes: 2, parallelism: 1 };
const wraps = [
  {
    name: 'the usual parameters',
    password: 'correct horse battery staple',
    options: { generation: 0, memoryKiB: 64 * 1024, passes: 3, parallelism: 4, salt },
  },
  {
    name: 'the least parameters, generation 3',
    password: 'correct horse battery staple',
    options: { generation: 3, ...least, salt },
  },
  {
    name: 'a password with accents (NFC)',
    password: 'caf\u00e9 na\u00efve',
    options: { generation: 0, ...least, salt },
  },
  {
    name: 'the same password decomposed (NFD): the same record',
    password: 'cafe\u0301 nai\u0308ve',
    options: { generation: 0, ...least, salt },
  },
];
const wrapCases = [];
for (const { name, password, options } of wraps) {
  const record = await wrapKey(vaultKey, password, options);
  const { derived } = second.unwrapKey(record, password);
  wrapCases.push({
    name,
    vaultKey: hex(vaultKey),
    password,
    ...options,
    salt: hex(salt),
    derived: hex(derived),
    record: hex(record),
  });
}
const record = await wrapKey(vaultKey, 'password', { ...least, salt });
const withNumber = (at: number, value: number) => {
  const copy = Buffer.from(record);
  copy.writeUInt32BE(value, at);
  return copy;
};
const wrapFailures = [
  { name: 'another password', reason: 'wrong_password', password: 'Password', record },
  { name: 'a bit of the key flipped', reason: 'wrong_password', record: flipped(record, 95) },
  { name: 'a bit of the siv flipped', reason: 'wrong_password', record: flipped(record, 40) },
  { name: 'the generation changed', reason: 'wrong_password', record: withNumber(12, 1) },
  { name: 'too little memory', reason: 'bad_record', record: withNumber(4, 19 * 1024 - 1) },
  { name: 'too much memory', reason: 'bad_record', record: withNumber(4, 256 * 1024 + 1) },
  { name: 'one pass', reason: 'bad_record', record: withNumber(8, 1) },
  { name: '17 passes', reason: 'bad_record', record: withNumber(8, 17) },
  {
    name: 'no lanes',
    reason: 'bad_record',
    record: Buffer.concat([record.subarray(0, 2), Buffer.of(0), record.subarray(3)]),
  },
  { name: 'a byte short', reason: 'bad_record', record: record.subarray(0, -1) },
  { name: 'format 2', reason: 'bad_record', record: Buffer.concat([Buffer.of(2), record.subarray(1)]) },
];
write('key-wrap.json', {
  about:
    'A vault key wrapped by a password. derived: the 64 bytes of Argon2id. failures: unwrapping must be refused, for this reason.',
  cases: wrapCases,
  failures: wrapFailures.map(({ name, reason, password = 'password', record: bytes }) => ({
    name,
    reason,
    password,
    record: hex(bytes),
  })),
});

// --- keys wrapped by a later key ------------------------------------------------------------------------------------

const keyInKeyCases = [
  { name: 'the first of two', key: vaultKey, wrapping: otherKey, generation: 1, by: 2 },
  { name: 'the first of three', key: vaultKey, wrapping: otherKey, generation: 1, by: 3 },
  { name: 'the second of three', key: named('a second key'), wrapping: otherKey, generation: 2, by: 3 },
  { name: 'the largest generations', key: vaultKey, wrapping: otherKey, generation: 2 ** 32 - 2, by: 2 ** 32 - 1 },
].map(({ name, key, wrapping, generation, by }) => ({
  name,
  vaultKey: hex(key),
  wrappingKey: hex(wrapping),
  generation,
  by,
  record: hex(wrapKeyInKey(key, wrapping, { generation, by })),
}));
const inKey = wrapKeyInKey(vaultKey, otherKey, { generation: 1, by: 2 });
const keyInKeyFailures: { name: string; reason: string; record: Buffer; wrapping?: Buffer; of?: object }[] = [
  { name: 'no bytes', reason: 'bad_record', record: Buffer.alloc(0) },
  { name: 'a byte short', reason: 'bad_record', record: inKey.subarray(0, -1) },
  { name: 'a byte more', reason: 'bad_record', record: Buffer.concat([inKey, Buffer.of(0)]) },
  { name: 'format 2', reason: 'bad_record', record: Buffer.concat([Buffer.of(2), inKey.subarray(1)]) },
  { name: 'wrapped by a password', reason: 'bad_record', record: flippedAt(inKey, 1, 3) },
  { name: 'a reserved byte set', reason: 'bad_record', record: flippedAt(inKey, 2, 1) },
  { name: 'another reserved byte set', reason: 'bad_record', record: flippedAt(inKey, 11, 1) },
  { name: 'wrapped by itself', reason: 'bad_record', record: flippedAt(inKey, 7, 3) },
  { name: 'wrapped by an earlier one', reason: 'bad_record', record: flippedAt(inKey, 15, 2) },
  { name: 'another generation expected', reason: 'wrong_generation', record: inKey, of: { generation: 2, by: 3 } },
  { name: 'wrapped by another generation', reason: 'wrong_generation', record: inKey, of: { generation: 1, by: 3 } },
  { name: 'another key', reason: 'not_authentic', record: inKey, wrapping: vaultKey },
  { name: 'a bit of the siv flipped', reason: 'not_authentic', record: flippedAt(inKey, 16, 1) },
  { name: 'a bit of the wrapped key flipped', reason: 'not_authentic', record: flippedAt(inKey, 79, 1) },
];
write('key-in-key.json', {
  about: 'A vault key wrapped by the key of a later generation. failures: unwrapping must be refused, for this reason.',
  cases: keyInKeyCases,
  failures: keyInKeyFailures.map(({ name, reason, record, wrapping = otherKey, of = { generation: 1, by: 2 } }) => ({
    name,
    reason,
    record: hex(record),
    wrappingKey: hex(wrapping),
    ...of,
  })),
});

function flippedAt(bytes: Buffer, at: number, bits: number): Buffer {
  return Buffer.from(bytes.map((byte, index) => (index === at ? byte ^ bits : byte)));
}
