/** What a writer of entries is to a restore, and the two there are. */
import type { Attributes } from '../../../protocol/attributes.ts';
import { splitPath } from '../../../protocol/paths.ts';
import { Problem } from '../../../protocol/problems.ts';
import type { KeptMax } from '../types.ts';
import { tarEnd, tarHeader, tarPadding } from './tar.ts';
import { ZipWriter, zipEntriesMax, zipNameBytesMax } from './zip.ts';
import { zipName } from './zip-names.ts';

export interface EntryHead {
  path: Buffer;
  kind: 'file' | 'directory' | 'symlink';
  /** Bytes of content; of a symlink, of its target. */
  size: number;
  /** Milliseconds since the epoch. */
  mtime: number;
  attributes: Attributes;
  /** CRC-32 of the content; null when it is not known yet. */
  crc: number | null;
}

export type FormatName = 'zip' | 'tar';

/** Entries one after the other: `begin`, the content (a symlink's is in its head), `end`. */
export interface ArchiveFormat {
  /** It cannot name this path at all. */
  refuses(path: Buffer): 'name_too_long' | null;
  /** The name it gives a path, when that is another one. */
  changedName(path: Buffer): string | null;
  /** The first name of a path's entry, as text: what a last entry must not be called. */
  topName(path: Buffer): string;
  begin(head: EntryHead): Buffer;
  end(crc: number): Promise<Buffer>;
  /** A further name of a file; `first`: the path whose entry came before. Absent when the format has no such thing. */
  link?(head: EntryHead, first: Buffer): Buffer;
  /** An entry of ours, named directly. */
  beginText(text: { name: string; size: number; mtime: number; crc: number }): Buffer;
  finish(): AsyncGenerator<Buffer>;
}

/** @param above names of every path that its entry does without */
export function openFormat(format: FormatName, above: number, kept: Pick<KeptMax, 'directoryBytes'>): ArchiveFormat {
  return format === 'zip' ? zipFormat(above, kept.directoryBytes) : tarFormat(above);
}

function zipFormat(above: number, directoryBytesMax: number): ArchiveFormat {
  const zip = new ZipWriter();
  let last: { path: Buffer; named: ReturnType<typeof zipName> } | null = null;
  // Asked several times for one entry.
  const nameOf = (path: Buffer): ReturnType<typeof zipName> => {
    if (last?.path !== path) last = { path, named: zipName(path, above) };
    return last.named;
  };
  const begin = (name: string, head: Omit<EntryHead, 'path' | 'attributes'>, mode: number): Buffer => {
    if (zip.entries >= zipEntriesMax)
      throw new Problem('out_of_bounds', `a zip holds at most ${zipEntriesMax} files, folders and links`, {
        field: 'format',
      });
    if (zip.heldBytes > directoryBytesMax)
      throw new Problem('out_of_bounds', 'the names are more than a zip can be made of: take a tar', {
        field: 'format',
      });
    const { kind, size, mtime, crc } = head;
    const text = kind === 'directory' ? `${name}/` : name;
    const entry = zip.begin({ name: Buffer.from(text), kind, mode, mtimeMs: mtime, size, crc });
    return kind === 'symlink' ? Buffer.concat([entry, (head as EntryHead).attributes.target!]) : entry;
  };
  return {
    refuses: (path) => (Buffer.byteLength(nameOf(path).name) >= zipNameBytesMax ? 'name_too_long' : null),
    changedName(path) {
      const { name, changed } = nameOf(path);
      return changed ? name : null;
    },
    topName: (path) => nameOf(path).name.split('/', 1)[0]!,
    begin: (head) => begin(nameOf(head.path).name, head, head.attributes.mode),
    end: (crc) => zip.end(crc),
    beginText: ({ name, ...head }) => begin(name, { kind: 'file', ...head }, 0o644),
    finish: () => zip.finish(),
  };
}

function tarFormat(above: number): ArchiveFormat {
  let size = 0;
  const pathOf = (path: Buffer): Buffer => {
    const names = splitPath(path).slice(above);
    return Buffer.concat(names.flatMap((name, i) => (i === 0 ? [name] : [Buffer.from('/'), name])));
  };
  const header = (head: EntryHead, type: 'file' | 'link' | 'symlink' | 'directory', linkPath?: Buffer): Buffer => {
    const { mode, uid, gid, owner, group, mtimeNs } = head.attributes;
    size = type === 'file' ? head.size : 0;
    const path = pathOf(head.path);
    return tarHeader({ path, type, mode, uid, gid, owner, group, mtimeMs: head.mtime, mtimeNs, size, linkPath });
  };
  return {
    refuses: () => null,
    changedName: () => null,
    topName: (path) => splitPath(path)[above]!.toString('utf8'),
    begin: (head) => header(head, head.kind, head.attributes.target),
    end: async () => tarPadding(size),
    link: (head, first) => header(head, 'link', pathOf(first)),
    beginText({ name, mtime, ...text }) {
      size = text.size;
      const file = { type: 'file', mode: 0o644, uid: 0, gid: 0, mtimeMs: mtime, mtimeNs: 0 } as const;
      return tarHeader({ path: Buffer.from(name), ...file, size });
    },
    async *finish() {
      yield tarEnd;
    },
  };
}
