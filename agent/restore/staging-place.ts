/**
 * Where a restore's staging folder is: in the target; or, where nothing can be made there because only what lies below it
 * is ours to write ('/' and '/home', for whoever is not root), in a folder of the agent.
 */
import { mkdir, rmdir } from 'node:fs/promises';
import { type Folder, nameOf, openTarget } from './folders.ts';
import { isCaseSensitive, openStaging, type Staging } from './staging.ts';
import { stagingName } from './staging-lock.ts';
import { RestoreError, type RestoreOptions } from './types.ts';

export interface StagingPlace {
  /** The folder it lies in: the target, or another that is to be closed. */
  in: Folder;
  staging: Staging;
}

/** Opens the staging folder, and makes its name one that nothing of the archive gets. @throws RestoreError */
export async function openStagingFor(target: Folder, options: RestoreOptions): Promise<StagingPlace> {
  const { stagingElsewhere, caseSensitive, folderHandles } = options;
  const elsewhere = stagingElsewhere !== undefined && !(await canMakeIn(target));
  const folder = elsewhere ? await openTarget({ to: stagingElsewhere, folderHandles }) : target;
  try {
    const staging = await openStaging(folder);
    // Of the target itself it can be asked only by a name in it that is ours.
    if (caseSensitive === undefined)
      target.caseSensitive = elsewhere ? target.platform === 'linux' : await isCaseSensitive(target);
    target.reserve(stagingName);
    return { in: folder, staging };
  } catch (error) {
    if (folder !== target) await folder.close();
    throw error;
  }
}

/** Whether a folder can be made here, found by making the one that is to be. */
async function canMakeIn(target: Folder): Promise<boolean> {
  await target.guard();
  const path = target.at(nameOf(target, stagingName));
  try {
    await mkdir(path, 0o700);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') return true;
    if (['EACCES', 'EPERM', 'EROFS'].includes(code ?? '')) return false;
    throw new RestoreError('target_failed', `cannot write into the target: ${message}`, { cause: error });
  }
  await rmdir(path).catch(() => undefined);
  return true;
}
