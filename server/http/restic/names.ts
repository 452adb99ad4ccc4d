/** What is in a repository: where a file lies in its archive, and what may be done to it in which mode. */
import { Problem } from '../../../protocol/problems.ts';
import type { PlainName } from '../../../storage/archive/plain-files/commit-plain.ts';
import type { ResticMode } from '../../directory/restic/access.ts';
import type { Context } from '../deps.ts';

export const configFile: PlainName = { folder: '', name: 'config' };
const types = new Set(['data', 'keys', 'locks', 'snapshots', 'index']);
/** Files are named by the SHA-256 of what they hold. */
const nameShape = /^[0-9a-f]{64}$/;

/** @throws Problem not_found: what cannot be a file is none */
export function fileOf(ctx: Context): PlainName {
  const { name = '' } = paramsOf(ctx);
  const folder = folderOf(ctx);
  if (!nameShape.test(name)) throw new Problem('not_found', 'there is no such file');
  return { folder, name };
}

/** @throws Problem not_found */
export function folderOf(ctx: Context): string {
  const { type = '' } = paramsOf(ctx);
  if (!types.has(type)) throw new Problem('not_found', 'there is no such type of files');
  return type;
}

function paramsOf(ctx: Context): { type?: string; name?: string } {
  return (ctx as unknown as { params: { type?: string; name?: string } }).params;
}

/** restic locks a repository also to read it, and takes its locks away again. */
export const isLock = ({ folder }: PlainName): boolean => folder === 'locks';

/** @throws Problem forbidden */
export function assertMayPut(mode: ResticMode, file: PlainName): void {
  if (mode === 'read' && !isLock(file)) throw new Problem('forbidden', 'this token is for reading');
}

/** @throws Problem forbidden */
export function assertMayHide(mode: ResticMode, file: PlainName): void {
  if (mode !== 'full' && !isLock(file))
    throw new Problem(
      'forbidden',
      mode === 'read' ? 'this token is for reading' : 'this token deletes nothing but locks',
    );
}
