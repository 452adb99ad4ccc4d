/**
 * The files of the demo: a copy of real ones (this project's sources, and of the packages it uses as much as fits), and
 * some made for what they show: large ones, a double, links, modes, odd names, nothing at all.
 */
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { appendFile, chmod, mkdir, open, readFile, rename, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { copyTree } from './compare-trees.ts';

const project = fileURLToPath(new URL('..', import.meta.url));
const MiB = 1024 * 1024;
const hasModes = process.platform !== 'win32';
/** What a name's bytes may be differs: only Linux takes any. */
const takesAnyName = process.platform === 'linux';

/** Fills a folder: about 3,000 files and 120 MiB. */
export async function makeFiles(folder: string): Promise<void> {
  const bounds = { filesLeft: 3_000, bytesLeft: 48 * MiB, fileBytesMax: 8 * MiB };
  for (const name of ['protocol', 'storage', 'server', 'agent', 'docs', 'node_modules']) {
    const source = join(project, name);
    if (existsSync(source)) await copyTree(source, join(folder, 'project', name), bounds);
  }
  const own = join(folder, 'documents');
  await mkdir(join(own, 'letters', 'never written'), { recursive: true });
  const photo = randomBytes(24 * MiB);
  await writeFile(join(own, 'photo.raw'), photo);
  await writeFile(join(own, 'photo (copy).raw'), photo);
  await writeFile(join(own, 'mailbox.mbox'), randomBytes(32 * MiB));
  await writeFile(join(own, 'journal.log'), 'Nothing happened, and it was written down.\n'.repeat(50_000));
  await writeFile(join(own, 'empty.txt'), '');
  await writeFile(join(own, 'letters', 'Grüße aus Åarhus – 世界 👋.txt'), 'Wish you were here.\n');
  await writeFile(join(own, 'backup.sh'), '#!/bin/sh\nexec npm run agent -- backup "$HOME"\n');
  await writeFile(join(own, 'diary.txt'), 'Dear diary, only I may read this.\n');
  if (takesAnyName) await writeFile(Buffer.from(join(own, 'caf\xe9 (not UTF-8).txt'), 'latin1'), 'An old name.\n');
  if (!hasModes) return;
  await chmod(join(own, 'backup.sh'), 0o755);
  await chmod(join(own, 'diary.txt'), 0o600);
  await chmod(join(own, 'letters'), 0o750);
  await symlink('letters/never written', join(own, 'inbox'));
  await symlink('/nowhere/at/all', join(own, 'broken link'));
}

/** What a day does to files. @returns each change in words */
export async function changeFiles(folder: string): Promise<string[]> {
  const own = join(folder, 'documents');
  // A few bytes put in the middle move all that follows: blocks are cut by content, so most of them stay the same.
  const mailbox = await readFile(join(own, 'mailbox.mbox'));
  const middle = mailbox.byteLength >> 1;
  await writeFile(
    join(own, 'mailbox.mbox'),
    Buffer.concat([mailbox.subarray(0, middle), Buffer.from('One new letter.\n'), mailbox.subarray(middle)]),
  );
  await appendFile(join(own, 'journal.log'), 'Then something happened.\n');
  const photo = await open(join(own, 'photo.raw'), 'r+');
  await photo.write('retouched', 3 * MiB);
  await photo.close();
  await rename(join(folder, 'project', 'agent'), join(folder, 'project', 'agent, renamed'));
  await rm(join(folder, 'project', 'docs'), { recursive: true });
  await rm(join(own, 'empty.txt'));
  await writeFile(join(own, 'new.bin'), randomBytes(4 * MiB));
  await truncate(join(own, 'diary.txt'), 10);
  const changes = [
    '16 bytes put into the middle of a 32 MiB mailbox',
    '9 bytes of a 24 MiB photo overwritten, and a line added to a log',
    'a folder renamed, another one and a file deleted, a file cut short',
    'a new file of 4 MiB',
  ];
  if (!hasModes) return changes;
  await chmod(join(own, 'backup.sh'), 0o700);
  await rm(join(own, 'inbox'));
  await symlink('letters', join(own, 'inbox'));
  return [...changes, 'a script closed to others, a symlink pointed elsewhere'];
}
