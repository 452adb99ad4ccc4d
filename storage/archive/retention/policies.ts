/**
 * The policies of an archive: one for all of its files, and others for what lies in certain folders, instead of it.
 *
 * A file that several folders' policies are for is kept by any of them (retention.ts, planByAny). Where it is in doubt
 * whether one is for a file, the file has it beside what it has without: then nothing goes that should have stayed,
 * whichever is true. In doubt is
 * - a path that differs from the folder's in the case of letters alone, as long as the folder is not one where case makes no
 *   difference: on most Macs they are one file, elsewhere two;
 * - a path whose letters are composed in another way than the folder's: likewise, and on Windows two;
 * - a path on a drive or a share of Windows, for the folder `/`: who wrote that hardly meant `C:\`.
 */
import { isUtf8 } from 'node:buffer';
import { sha256 } from '../../../protocol/hashes.ts';
import { anyCaseOf, composedNames } from './path-names.ts';
import type { RetentionPolicy } from './retention.ts';

export interface Folder {
  /** Of the folder, or of one file, as the archive has it (protocol/paths.ts). */
  path: Buffer;
  /** A path that differs in the case of letters alone is the same there. */
  anyCase: boolean;
}

export interface NamedPolicy {
  /** Whose it is, for people. */
  name: string;
  policy: RetentionPolicy;
  /** What goes by it is of no use to anybody, and does not count towards what may expire within a day. */
  isUncapped?: boolean;
}

export interface FolderPolicy extends NamedPolicy {
  folders: readonly Folder[];
}

export interface ArchivePolicies extends NamedPolicy {
  /** For what lies at or below their folders, instead of the archive's own. */
  folders: readonly FolderPolicy[];
}

/** One policy for everything. */
export function onlyPolicy(policy: RetentionPolicy, name = 'the archive'): ArchivePolicies {
  return { name, policy, folders: [] };
}

/** A path; null: not known. */
export type PoliciesOfPath = (path: Buffer | null) => readonly NamedPolicy[];

interface Entry {
  /** Of the policy, among those of folders. */
  index: number;
  /** Its path byte by byte, and where case makes no difference, as `inAnyCase` has it. */
  exact: string;
  anyCase: string | null;
}

/** Which policies a file has, by its path: at least one. A look-up for each of its folders, however many policies there are. */
export function policiesByPath(policies: ArchivePolicies): PoliciesOfPath {
  const { name, policy, folders } = policies;
  const own: NamedPolicy = { name, policy };
  if (folders.length === 0) return () => [own];
  const entries = new Map<string, Entry[]>();
  for (const [index, each] of folders.entries())
    for (const { path, anyCase } of each.folders) {
      const folded = keyOf(composedNames(path).map(anyCaseOf));
      const exact = path.toString('latin1');
      const entry = { index, exact, anyCase: anyCase ? inAnyCase(exact) : null };
      entries.set(folded, [...(entries.get(folded) ?? []), entry]);
    }

  return (path) => {
    if (path === null) return [own, ...folders];
    const names = composedNames(path);
    const exact = path.toString('latin1');
    const sure = new Set<number>();
    const perhaps = new Set<number>();
    let folded = '';
    let end = 0;
    for (let depth = 0; depth <= names.length; depth++) {
      if (depth > 0) {
        end = exact.indexOf('/', end + 1);
        folded += `/${anyCaseOf(names[depth - 1]!)}`;
      }
      for (const entry of entries.get(folded) ?? []) {
        const isSure = depth === 0 ? !isOfWindows(names) : isSame(entry, end < 0 ? exact : exact.slice(0, end));
        (isSure ? sure : perhaps).add(entry.index);
      }
    }
    const found = folders.filter((_, index) => sure.has(index) || perhaps.has(index));
    return sure.size > 0 ? found : [own, ...found];
  };
}

/** Whether a path that differs from the entry's at most in its letters' case and composition is surely the same there. */
function isSame(entry: Entry, exact: string): boolean {
  return entry.exact === exact || (entry.anyCase !== null && entry.anyCase === inAnyCase(exact));
}

/** A path given byte by byte, whatever the case of its letters, which stay composed as they are. */
function inAnyCase(exact: string): string {
  const bytes = Buffer.from(exact, 'latin1');
  return isUtf8(bytes) ? bytes.toString().toUpperCase().toLowerCase() : exact;
}

function keyOf(names: readonly string[]): string {
  return names.map((name) => `/${name}`).join('');
}

/** `/C:/...` and `/UNC/...`: where the archive has the drives and shares of Windows. */
function isOfWindows(names: readonly string[]): boolean {
  return names[0] === 'UNC' || /^[A-Z]:$/.test(names[0] ?? '');
}

/** What plans rest on, beside the time. Names are not of it: nothing goes because a plan is called otherwise. */
export function planDigest({ policy, folders }: ArchivePolicies, holds: readonly unknown[]): Buffer {
  const ofFolders = folders
    .map((each) => [
      each.folders.map(({ path, anyCase }) => `${Number(anyCase)}${path.toString('hex')}`).sort(),
      numbersOf(each.policy),
    ])
    .map((each) => JSON.stringify(each))
    .sort();
  const rests = [...numbersOf(policy), holds, ...(ofFolders.length > 0 ? [ofFolders] : [])];
  return sha256(Buffer.from(JSON.stringify(rests)));
}

function numbersOf({ windows, deletedAfterDays, keepNewest, keepWithinDays }: RetentionPolicy): unknown[] {
  return [windows.map((each) => [each.untilDays, each.everyMinutes]), deletedAfterDays, keepNewest, keepWithinDays];
}
