/** For tests: a sealed export of an archive in memory, written here frame by frame and not by the server's writer. */
import { createHash } from 'node:crypto';
import { hashKeyAt, splitHashes } from '../../protocol/hashes.ts';
import type { StoredVersion } from '../../protocol/messages.ts';
import {
  type ExportFrameName,
  type ExportHeader,
  encodeExportMessage,
  exportFrameHead,
  exportMagic,
} from '../../protocol/sealed-export.ts';
import { archive, type TestArchive, vault } from '../restore/test-archive.ts';

export interface Frame {
  name: ExportFrameName | 'magic';
  bytes: Buffer;
}

export const header: ExportHeader = {
  vault,
  archive,
  guid: '9',
  seq: 5,
  at: 1_700_000_000_000,
  deleted: false,
  keys: [{ level: 'standard', generation: 1 }],
};

export const frame = (name: ExportFrameName, body: Buffer): Frame => ({
  name,
  bytes: Buffer.concat([exportFrameHead(name, body.byteLength), body]),
});

/** All frames but the end. */
export async function framesOf(from: TestArchive, chosen = '/', head: ExportHeader = header): Promise<Frame[]> {
  const frames: Frame[] = [
    { name: 'magic', bytes: exportMagic },
    { name: 'header', bytes: encodeExportMessage('header', head) },
    frame('chosen', Buffer.from(chosen)),
  ];
  const { versions } = await from.versions(archive, { path: Buffer.from(chosen) });
  for await (const version of versions) frames.push(...contentOf(from, version), versionFrame(version));
  return frames;
}

export const versionFrame = (version: StoredVersion): Frame => ({
  name: 'version',
  bytes: encodeExportMessage('version', version),
});

function contentOf(from: TestArchive, { blocks, lists }: StoredVersion): Frame[] {
  const frames: Frame[] = [];
  const add = (name: 'block' | 'list', hash: Buffer, bytes: Buffer | undefined): void => {
    if (bytes) frames.push(frame(name, Buffer.concat([hash, bytes])));
  };
  const all = [blocks];
  for (const list of splitHashes(lists)) {
    const named = from.lists.get(hashKeyAt(list, 0));
    add('list', list, named);
    if (named) all.push(named);
  }
  for (const block of all.flatMap(splitHashes)) add('block', block, from.blocks.get(hashKeyAt(block, 0)));
  return frames;
}

/** The whole file. */
export function ended(frames: readonly Frame[]): Buffer {
  const before = Buffer.concat(frames.map(({ bytes }) => bytes));
  const none = { files: 0, folders: 0, symlinks: 0, bytes: 0, leftOut: 0, blocks: 0, lists: 0 };
  const end = encodeExportMessage('end', { ...none, sha256: createHash('sha256').update(before).digest() });
  return Buffer.concat([before, end]);
}
