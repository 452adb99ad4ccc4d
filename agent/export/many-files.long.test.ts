/** A sealed export of many small files: the memory of whoever opens it is bounded, and all of them come back. */
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { closeSync, opendirSync, openSync, readFileSync, writeSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';
import { encodeAttributes } from '../../protocol/attributes.ts';
import { sha256 } from '../../protocol/hashes.ts';
import type { StoredVersion } from '../../protocol/messages.ts';
import { encodeExportMessage, exportFrameHead, exportMagic } from '../../protocol/sealed-export.ts';
import { deriveKeys, keyCheck, seal, versionMac } from '../../protocol/sealing/index.ts';
import { scratchFolder } from '../files/test-tree.ts';
import { header } from './test-export.ts';

/** The program and its libraries take 85 MB; what a restore holds is 32 MiB of blocks and what is on its way to the disk. */
const memoryBytesMax = 350 * 1024 * 1024;
const filesPerFolder = 1_000;
const fileCount = Number(process.env.HOLDFAST_TEST_FILES ?? 100_000);
const main = fileURLToPath(new URL('../main.ts', import.meta.url));

function writeExport(path: string, key: Buffer): void {
  const keys = deriveKeys(key);
  const { vault, archive } = header;
  const fd = openSync(path, 'w');
  const digest = createHash('sha256');
  let pending: Buffer[] = [];
  const flush = (): void => {
    const bytes = Buffer.concat(pending);
    pending = [];
    digest.update(bytes);
    writeSync(fd, bytes);
  };
  const add = (...parts: Buffer[]): void => {
    pending.push(...parts);
    if (pending.length > 5_000) flush();
  };
  add(
    exportMagic,
    encodeExportMessage('header', { ...header, keys: [{ level: 'custom', generation: 1, check: keyCheck(key) }] }),
  );
  add(exportFrameHead('chosen', 5), Buffer.from('/many'));
  const attributes = seal(
    keys,
    { type: 'attributes', vault, generation: 1 },
    encodeAttributes({ mode: 0o644, uid: 0, gid: 0, mtimeNs: 0 }),
  );
  const none = Buffer.alloc(0);
  for (let i = 0; i < fileCount; i++) {
    const content = Buffer.from(`the content of file ${i}`);
    const block = seal(keys, { type: 'block', vault, generation: 1 }, content);
    const name = sha256(block);
    add(exportFrameHead('block', 32 + block.byteLength), name, block);
    const version: StoredVersion = {
      path: Buffer.from(`/many/${String(Math.floor(i / filesPerFolder)).padStart(6, '0')}/file ${i % filesPerFolder}`),
      kind: 'file',
      size: content.byteLength,
      mtime: 1_600_000_000_000,
      attributes,
      blocks: name,
      lists: none,
      deleted: false,
      mac: none,
      seq: i + 1,
      committedAt: 0,
    };
    version.mac = versionMac(keys, archive, version);
    add(encodeExportMessage('version', version));
  }
  flush();
  const counts = { files: fileCount, folders: 0, symlinks: 0, bytes: 0, leftOut: 0, blocks: fileCount, lists: 0 };
  writeSync(fd, encodeExportMessage('end', { ...counts, sha256: digest.digest() }));
  closeSync(fd);
}

test(
  `${fileCount} files`,
  async () => {
    const scratch = scratchFolder();
    try {
      const key = randomBytes(32);
      const [file, keyFile, to] = ['export', 'key', 'to'].map((name) => `${scratch.path}/${name}`) as [
        string,
        string,
        string,
      ];
      writeExport(file, key);
      const fd = openSync(keyFile, 'w');
      writeSync(fd, key.toString('hex'));
      closeSync(fd);
      const args = ['open-export', file, '--to', to, '--custom-key-file', keyFile, '--home', scratch.path, '--json'];
      const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', main, ...args]);
      let said = '';
      child.stdout.on('data', (bytes) => {
        said = (said + bytes).slice(-4_096);
      });
      let peakBytes = 0;
      const look = setInterval(() => {
        const status = readFileSync(`/proc/${child.pid}/status`, 'utf8');
        peakBytes = Math.max(peakBytes, Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * 1024);
      }, 200);
      const code = await new Promise((resolve) => child.once('exit', resolve));
      clearInterval(look);
      expect([code, JSON.parse(said.trim().split('\n').at(-1)!)]).toMatchObject([
        0,
        { outcome: 'completed', filesRestored: fileCount, versions: fileCount },
      ]);
      expect(readFileSync(`${to}/many/000000/file 7`, 'utf8')).toBe('the content of file 7');
      let folders = 0;
      const opened = opendirSync(`${to}/many`);
      for (let each = opened.readSync(); each; each = opened.readSync()) folders++;
      opened.closeSync();
      expect(folders).toBe(Math.ceil(fileCount / filesPerFolder));
      process.stdout.write(`${fileCount} files: ${Math.round(peakBytes / 1e6)} MB at most\n`);
      expect(peakBytes).toBeLessThan(memoryBytesMax);
    } finally {
      scratch.remove();
    }
  },
  30 * 60_000,
);
