/** docs/protocol.md shows bytes; these are the bytes the code makes and reads. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';
import { decodeBlockFrames, encodeBlockFrameHeader, encodeBlockFramesEnd } from './block-frames.ts';
import { sha256 } from './hashes.ts';
import { limits, listing } from './limits.ts';
import { ClaimAnswer, ClaimRequest, CommitAnswer, CommitRequest } from './messages.ts';
import { encodeUpload, readUploadHeader } from './upload.ts';
import { ByteReader, decodeMessage, encodeFrame, encodeMessage } from './wire.ts';

const page = readFileSync(fileURLToPath(new URL('../docs/protocol.md', import.meta.url)), 'utf8');

/** The page's examples: hexadecimal, with text in quotes. */
const examples = [...page.matchAll(/```\n(.*?)```/gs)].map(([, text]) =>
  Buffer.concat(
    (text!.match(/"[^"]*"|[0-9a-f]+/g) ?? []).map((part) =>
      part.startsWith('"') ? Buffer.from(part.slice(1, -1)) : Buffer.from(part, 'hex'),
    ),
  ),
);
const [claim, claimAnswer, upload, listUpload, commit, commitAnswer, end, fetched] = examples;

const abc = Buffer.from('abc');
const defg = Buffer.from('defg');

test('the page has eight examples', () => {
  expect(examples).toHaveLength(8);
});

test('a claim and its answer', () => {
  expect(encodeMessage({ blocks: Buffer.concat([sha256(abc), sha256(defg)]) })).toEqual(claim);
  expect(decodeMessage(ClaimRequest, claim!).blocks).toEqual(Buffer.concat([sha256(abc), sha256(defg)]));
  const answer = {
    blocks: Buffer.of(0b10),
    lists: Buffer.alloc(0),
    claimedUntil: Date.UTC(2026, 0, 1),
    claimedForMs: 7 * 24 * 3_600_000,
  };
  expect(encodeMessage(answer)).toEqual(claimAnswer);
  expect(decodeMessage(ClaimAnswer, claimAnswer!)).toEqual(answer);
});

test('an upload', async () => {
  const blocks = [abc, defg].map((bytes) => ({ hash: sha256(bytes), bytes }));
  expect(Buffer.concat(encodeUpload(blocks).chunks)).toEqual(upload);
  const reader = new ByteReader(
    (async function* () {
      for (const byte of upload!) yield Buffer.of(byte);
    })(),
  );
  expect(await readUploadHeader(reader, upload!.byteLength)).toMatchObject({ lengths: [3, 4] });
  expect(Buffer.concat(await Array.fromAsync(reader.remaining()))).toEqual(Buffer.from('abcdefg'));
});

test('an upload of a block and a list', async () => {
  const blocks = Buffer.concat([sha256(abc), sha256(defg)]);
  const list = { hash: sha256(blocks), blocks };
  expect(Buffer.concat(encodeUpload([{ hash: sha256(defg), bytes: defg }], [list]).chunks)).toEqual(listUpload);
  const reader = new ByteReader(
    (async function* () {
      yield listUpload!;
    })(),
  );
  expect(await readUploadHeader(reader, listUpload!.byteLength)).toEqual({
    blocks: sha256(defg),
    lengths: [4],
    lists: list.hash,
    listLengths: [64],
  });
  expect(Buffer.concat(await Array.fromAsync(reader.pieces(4)))).toEqual(defg);
  expect(await reader.read(64)).toEqual(blocks);
  await reader.end();
});

test('a commit and its answer', () => {
  const version = {
    path: Buffer.from('/a'),
    kind: 'file',
    size: 3,
    mtime: 1_700_000_000_000,
    attributes: Buffer.alloc(0),
    blocks: sha256(abc),
    mac: Buffer.alloc(32, 9),
  };
  expect(encodeMessage({ commitId: Buffer.alloc(16, 7), run: 1, purgeEpoch: 0, versions: [version] })).toEqual(commit);
  expect(decodeMessage(CommitRequest, commit!).versions[0]).toMatchObject({ ...version, deleted: false });
  expect(encodeMessage({ firstSeq: 1, count: 1, purgeEpoch: 0 })).toEqual(commitAnswer);
  expect(decodeMessage(CommitAnswer, commitAnswer!)).toEqual({ firstSeq: 1, count: 1, purgeEpoch: 0 });
});

test('the end of a listing, and a fetch', async () => {
  expect(encodeFrame({ frame: 'end' })).toEqual(end);
  expect(
    Buffer.concat([encodeBlockFrameHeader(1, 4), defg, encodeBlockFrameHeader(0, 0), encodeBlockFramesEnd(2)]),
  ).toEqual(fetched);
  const frames = await Array.fromAsync(
    decodeBlockFrames(
      (async function* () {
        yield fetched!;
      })(),
      2,
    ),
  );
  expect(frames).toEqual([
    { index: 1, bytes: defg },
    { index: 0, bytes: null },
  ]);
});

test("the bounds the page names are the code's", () => {
  for (const bound of [
    limits.pathBytesMax,
    limits.pathDepthMax,
    limits.nameBytesMax,
    limits.uploadBlocksMax,
    limits.claimBlocksMax,
    limits.fetchBlocksMax,
    limits.versionBlocksMax,
    limits.versionListsMax,
    limits.uploadListsMax,
    limits.fetchListsMax,
    limits.listBlocksMax,
    listing.directBlocksMax,
  ]) {
    expect(page).toContain(bound.toLocaleString('en-US').replace(/^512$/, '512'));
  }
});
