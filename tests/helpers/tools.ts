/**
 * Programs that people open restores with: curl, unzip, tar. `npm test` needs none of them, so what they show is skipped
 * there where one is missing, or is another one of that name; the services suite installs them, and fails without
 * (HOLDFAST_TEST_TOOLS=1).
 */
import { spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { test } from '@jest/globals';

const areDemanded = process.env.HOLDFAST_TEST_TOOLS === '1';

/** Of which there are others by that name, on macOS and in busybox, with other options and other words. */
const ours = new Map([
  ['tar', { asked: '--version', says: /GNU tar/ }],
  ['unzip', { asked: '-v', says: /Info-ZIP/ }],
]);
const known = new Map<string, boolean>();

function isInstalled(program: string): boolean {
  const answer = known.get(program) ?? (isThere(program) && isOurs(program));
  known.set(program, answer);
  return answer;
}

function isThere(program: string): boolean {
  return (process.env.PATH ?? '').split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

function isOurs(program: string): boolean {
  const wanted = ours.get(program);
  if (!wanted) return true;
  const { stdout } = spawnSync(program, [wanted.asked], { encoding: 'utf8', timeout: 10_000 });
  return wanted.says.test(stdout ?? '');
}

/** Whether what these show is to be shown here. */
export const hasTools = (...programs: string[]): boolean => areDemanded || programs.every(isInstalled);

/** `test`, where these programs are. */
export const testWith = (...programs: string[]): typeof test =>
  hasTools(...programs) ? test : (test.skip as unknown as typeof test);
