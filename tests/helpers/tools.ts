/**
 * Programs that people open restores with: curl, unzip, tar. `npm test` needs none of them, so what they show is skipped
 * there where one is missing; the services suite installs them, and fails without (HOLDFAST_TEST_TOOLS=1).
 */
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { test } from '@jest/globals';

const areDemanded = process.env.HOLDFAST_TEST_TOOLS === '1';

function isInstalled(program: string): boolean {
  return (process.env.PATH ?? '').split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** Whether what these show is to be shown here. */
export const hasTools = (...programs: string[]): boolean => areDemanded || programs.every(isInstalled);

/** `test`, where these programs are. */
export const testWith = (...programs: string[]): typeof test =>
  hasTools(...programs) ? test : (test.skip as unknown as typeof test);
