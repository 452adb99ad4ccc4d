import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { lockFolder } from './folder-lock.ts';
import { endHolders, startHolder } from './testing.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'holdfast-lock-'));
});
afterEach(() => {
  endHolders();
  rmSync(folder, { recursive: true, force: true });
});

test('a locked folder is refused, naming who has it and where it listens', async () => {
  const holder = startHolder('lock', folder);
  await holder.says();
  await expect(lockFolder(folder, () => {})).rejects.toThrow(
    `a server (process ${holder.pid}, listening on https://127.0.0.1:1) already runs on the data folder ${folder}`,
  );
});

test('the lock of a killed server is free at once', async () => {
  const holder = startHolder('lock', folder);
  await holder.says();
  holder.kill('SIGKILL');
  await holder.ended;
  const lock = await lockFolder(folder, () => {});
  lock.release();
});

test('a server that is on its way out is waited for', async () => {
  const holder = startHolder('lock', folder);
  await holder.says();
  holder.kill('SIGTERM');
  await holder.says();
  const told: string[] = [];
  const lock = await lockFolder(folder, (line) => told.push(line));
  expect(told).toEqual([`waiting for the server that is stopping (process ${holder.pid})`]);
  lock.release();
});

test('a lock that was given back can be had again, also by the same process, and not twice', async () => {
  const first = await lockFolder(folder, () => {});
  await expect(lockFolder(folder, () => {})).rejects.toThrow(`process ${process.pid}, still starting`);
  first.release();
  (await lockFolder(folder, () => {})).release();
});
