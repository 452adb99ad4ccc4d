/**
 * Every bound of the agent protocol, at the real server: a request at the bound is taken, one past it is refused with a
 * problem that names the field.
 */
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { sha256 } from '../protocol/hashes.ts';
import { limits } from '../protocol/limits.ts';
import type { VersionMessage } from '../protocol/messages.ts';
import { encodeUpload } from '../protocol/upload.ts';
import { msgpackType } from '../protocol/wire.ts';
import {
  hashes,
  named,
  nested,
  problemOf,
  type RawDevice,
  registerRawDevice,
  upload,
  uploadType,
  verdict,
} from './helpers/raw-device.ts';
import { type RawAnswer, rawRequest } from './helpers/raw-http.ts';
import { type RunningServer, startServer } from './helpers/server.ts';
import { noCounts, version } from './helpers/storage.ts';

const MiB = 1024 * 1024;

let server: RunningServer;
let device: RawDevice;

beforeAll(async () => {
  server = await startServer();
  device = await registerRawDevice(server);
});

afterAll(async () => {
  device?.session.destroy();
  await server?.stop();
});

const distinctBlocks = (count: number): Buffer[] =>
  Array.from({ length: count }, (_, i) => Buffer.from(`block ${String(i).padStart(6, '0')}`));

/** A path of exactly so many bytes, of names as long as they may be. */
function pathOf(bytes: number): Buffer {
  const path = Buffer.alloc(bytes, 'p');
  for (let at = 0; at < bytes; at += limits.nameBytesMax) path[at] = 0x2f;
  return path;
}

/** An upload of lists and nothing else, each of hashes of its own. */
function listsOf(count: number, blocks: number): Buffer {
  const lists = Array.from({ length: count }, (_, salt) => {
    const names = hashes(blocks, 1_000 + salt);
    return { hash: sha256(names), blocks: names };
  });
  return Buffer.concat(encodeUpload([], lists).chunks);
}

const ofBlocks = (count: number, salt: number): VersionMessage => ({
  ...version(`/of ${salt}`),
  size: 1,
  blocks: hashes(count, salt),
});

describe('at a bound a request is taken, one past it is refused by name:', () => {
  const bounds: [
    what: string,
    edge: () => Promise<RawAnswer>,
    past: () => Promise<RawAnswer>,
    edgeSays: string,
    pastSays: string,
  ][] = [
    [
      'hashes in a claim',
      () => device.send('/v1/blocks/claim', { blocks: hashes(limits.claimBlocksMax) }),
      () => device.send('/v1/blocks/claim', { blocks: hashes(limits.claimBlocksMax + 1) }),
      'accepted',
      'out_of_bounds blocks',
    ],
    [
      'hashes in a fetch',
      () => device.send('/v1/blocks/fetch', { blocks: hashes(limits.fetchBlocksMax) }),
      () => device.send('/v1/blocks/fetch', { blocks: hashes(limits.fetchBlocksMax + 1) }),
      'accepted',
      'out_of_bounds blocks',
    ],
    [
      'hashes in a fetch, from below',
      () => device.send('/v1/blocks/fetch', { blocks: hashes(1) }),
      () => device.send('/v1/blocks/fetch', { blocks: hashes(0) }),
      'accepted',
      'out_of_bounds blocks',
    ],
    [
      'blocks and lists in a claim',
      () => device.send('/v1/blocks/claim', { blocks: hashes(1), lists: hashes(limits.claimBlocksMax - 1) }),
      () => device.send('/v1/blocks/claim', { blocks: hashes(1), lists: hashes(limits.claimBlocksMax) }),
      'accepted',
      'out_of_bounds lists',
    ],
    [
      'lists in a fetch',
      () => device.send('/v1/lists/fetch', { lists: hashes(limits.fetchListsMax) }),
      () => device.send('/v1/lists/fetch', { lists: hashes(limits.fetchListsMax + 1) }),
      'accepted',
      'out_of_bounds lists',
    ],
    [
      // None of their blocks is stored: at the edge it is that which is said.
      'lists in an upload',
      () => device.post('/v1/blocks', uploadType, listsOf(limits.uploadListsMax, 1)),
      () => device.post('/v1/blocks', uploadType, listsOf(limits.uploadListsMax + 1, 1)),
      'blocks_missing lists',
      'out_of_bounds lists',
    ],
    [
      'hashes in a list',
      () => device.post('/v1/blocks', uploadType, listsOf(1, limits.listBlocksMax)),
      () => device.post('/v1/blocks', uploadType, listsOf(1, limits.listBlocksMax + 1)),
      'blocks_missing lists',
      'out_of_bounds listLengths.0',
    ],
    [
      'runs in a page',
      () => device.get(device.at(`runs?limit=${limits.pageEntriesMax}`)),
      () => device.get(device.at(`runs?limit=${limits.pageEntriesMax + 1}`)),
      'accepted',
      'out_of_bounds limit',
    ],
    [
      'blocks in an upload',
      () => device.post('/v1/blocks', uploadType, upload(distinctBlocks(limits.uploadBlocksMax))),
      () => device.post('/v1/blocks', uploadType, upload(distinctBlocks(limits.uploadBlocksMax + 1))),
      'accepted',
      'out_of_bounds blocks',
    ],
    [
      'bytes in an upload',
      () => device.post('/v1/blocks', uploadType, upload([Buffer.alloc(16 * MiB, 1), Buffer.alloc(16 * MiB, 2)])),
      () => device.post('/v1/blocks', uploadType, upload([Buffer.alloc(16 * MiB, 1), Buffer.alloc(16 * MiB + 1, 2)])),
      'accepted',
      'out_of_bounds lengths',
    ],
    [
      'bytes in one block',
      () => device.post('/v1/blocks', uploadType, upload([Buffer.alloc(limits.blockBytesMax, 3)])),
      () => device.post('/v1/blocks', uploadType, upload([Buffer.alloc(limits.blockBytesMax + 1, 3)])),
      'accepted',
      'out_of_bounds lengths.0',
    ],
    [
      // No header of the right form is that long: at the edge it is its content that is refused.
      "bytes of an upload's header",
      () => device.post('/v1/blocks', uploadType, lengthPrefixed(limits.uploadHeaderBytesMax)),
      () => device.post('/v1/blocks', uploadType, lengthPrefixed(limits.uploadHeaderBytesMax + 1)),
      'malformed_request (whole message)',
      'out_of_bounds header',
    ],
    [
      'versions in a commit',
      () => device.commit(Array.from({ length: limits.commitVersionsMax }, (_, i) => version(`/many/${i}`))),
      () => device.commit(Array.from({ length: limits.commitVersionsMax + 1 }, (_, i) => version(`/many/${i}`))),
      'accepted',
      'out_of_bounds versions',
    ],
    [
      'versions in a commit, from below',
      () => device.commit([version('/one')]),
      () => device.commit([]),
      'accepted',
      'out_of_bounds versions',
    ],
    [
      // None of them is stored: at the edge it is that which is said.
      'blocks that one version names',
      () => device.commit([ofBlocks(limits.versionBlocksMax, 1)]),
      () => device.commit([ofBlocks(limits.versionBlocksMax + 1, 1)]),
      'blocks_missing versions',
      'out_of_bounds versions.0.blocks',
    ],
    [
      'lists that one version names',
      () => device.commit([{ ...version('/of lists'), size: 1, lists: hashes(limits.versionListsMax) }]),
      () => device.commit([{ ...version('/of lists'), size: 1, lists: hashes(limits.versionListsMax + 1) }]),
      'blocks_missing versions',
      'out_of_bounds versions.0.lists',
    ],
    [
      'distinct blocks that one commit names',
      () => device.commit([ofBlocks(limits.commitHashesMax - 1, 1), ofBlocks(1, 2)]),
      () => device.commit([ofBlocks(limits.commitHashesMax, 1), ofBlocks(1, 2)]),
      'blocks_missing versions',
      'out_of_bounds versions',
    ],
    [
      'bytes in a path',
      () => device.commit(named(pathOf(limits.pathBytesMax))),
      () => device.commit(named(pathOf(limits.pathBytesMax + 1))),
      'accepted',
      'out_of_bounds versions.0.path',
    ],
    [
      'bytes in a name',
      () => device.commit(named(Buffer.from(`/${'n'.repeat(limits.nameBytesMax)}`))),
      () => device.commit(named(Buffer.from(`/${'n'.repeat(limits.nameBytesMax + 1)}`))),
      'accepted',
      'malformed_request versions.0.path',
    ],
    [
      'names in a path',
      () => device.commit(named(Buffer.from('/d'.repeat(limits.pathDepthMax)))),
      () => device.commit(named(Buffer.from('/d'.repeat(limits.pathDepthMax + 1)))),
      'accepted',
      'malformed_request versions.0.path',
    ],
    [
      'bytes of attributes',
      () => device.commit(named(Buffer.from('/a'), { attributes: Buffer.alloc(limits.attributesBytesMax) })),
      () => device.commit(named(Buffer.from('/a'), { attributes: Buffer.alloc(limits.attributesBytesMax + 1) })),
      'accepted',
      'out_of_bounds versions.0.attributes',
    ],
    [
      'entries in a page',
      () => device.get(device.at(`tree?limit=${limits.pageEntriesMax}`)),
      () => device.get(device.at(`tree?limit=${limits.pageEntriesMax + 1}`)),
      'accepted',
      'out_of_bounds limit',
    ],
    [
      'entries in a page, from below',
      () => device.get(device.at('tree?limit=1')),
      () => device.get(device.at('tree?limit=0')),
      'accepted',
      'out_of_bounds limit',
    ],
    [
      'versions in a page of a history',
      () =>
        device.get(
          device.at(`history?limit=${limits.pageEntriesMax}&path=${Buffer.from('/one').toString('base64url')}`),
        ),
      () => device.get(device.at(`history?limit=${limits.pageEntriesMax + 1}`)),
      'accepted',
      'out_of_bounds limit',
    ],
    [
      'bytes in the path of a query',
      () => device.get(device.at(`versions?path=${pathOf(limits.pathBytesMax).toString('base64url')}`)),
      () => device.get(device.at(`versions?path=${pathOf(limits.pathBytesMax + 1).toString('base64url')}`)),
      'accepted',
      'path_invalid path',
    ],
    [
      'files left out in one message of a run',
      () =>
        device.send(device.at(`runs/${device.run}/progress`), {
          counts: noCounts,
          skipped: skipped(limits.runSkippedMax),
        }),
      () =>
        device.send(device.at(`runs/${device.run}/progress`), {
          counts: noCounts,
          skipped: skipped(limits.runSkippedMax + 1),
        }),
      'accepted',
      'out_of_bounds skipped',
    ],
    [
      "characters of a human's words",
      () =>
        device.send(device.at(`runs/${device.run}/progress`), {
          counts: noCounts,
          skipped: skipped(1, 'w'.repeat(limits.textMax)),
        }),
      () =>
        device.send(device.at(`runs/${device.run}/progress`), {
          counts: noCounts,
          skipped: skipped(1, 'w'.repeat(limits.textMax + 1)),
        }),
      'accepted',
      'out_of_bounds skipped.0.detail',
    ],
    [
      // What nests no deeper is refused for what it is.
      'nesting of a message',
      () => device.post('/v1/blocks/claim', msgpackType, nested(limits.messageDepthMax - 1)),
      () => device.post('/v1/blocks/claim', msgpackType, nested(limits.messageDepthMax)),
      'malformed_request (whole message)',
      'malformed_request (whole message)',
    ],
  ];

  test.each(bounds)('%s', async (_, edge, past, edgeSays, pastSays) => {
    expect(verdict(await edge())).toBe(edgeSays);
    expect(verdict(await past())).toBe(pastSays);
  });

  test('nesting is refused before a message is decoded', async () => {
    const detail = async (depth: number): Promise<string> =>
      problemOf(await device.post('/v1/blocks/claim', msgpackType, nested(depth))).detail;
    expect(await detail(limits.messageDepthMax - 1)).not.toContain('too deep');
    expect(await detail(limits.messageDepthMax)).toContain('nests too deep');
  });

  test.each([
    ['a message', '/v1/blocks/claim', msgpackType, limits.messageBytesMax],
    ['a commit', '', msgpackType, limits.commitBodyBytesMax],
    ['a registration', '/v1/register', msgpackType, 16 * 1024],
  ])('bytes in the body of %s', async (_, path, type, bytesMax) => {
    const to = path || device.at('commits');
    expect(verdict(await device.post(to, type, Buffer.alloc(bytesMax, 0xc1)))).toBe(
      'malformed_request (whole message)',
    );
    expect(verdict(await device.post(to, type, Buffer.alloc(bytesMax + 1, 0xc1)))).toMatch(/^body_too_large/);
    // The same without saying the length before.
    const headers = { ':method': 'POST', ':path': to, ...device.authorized, 'content-type': type };
    const unsaid = await rawRequest(device.session, headers, Buffer.alloc(bytesMax + 1, 0xc1));
    expect(verdict(unsaid)).toMatch(/^body_too_large/);
  });
});

function skipped(count: number, detail = ''): object[] {
  return Array.from({ length: count }, (_, i) => ({ path: Buffer.from(`/${i}`), reason: 'vanished', detail }));
}

function lengthPrefixed(headerBytes: number): Buffer {
  const body = Buffer.alloc(4 + headerBytes, 0xc1);
  body.writeUInt32BE(headerBytes);
  return body;
}
