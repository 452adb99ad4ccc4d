/**
 * Where a directory store keeps what, as pure functions. Below its root:
 *   layout                        which layout this is, and whose objects; see `directory-marker.ts`
 *   temp/                         files being written; nothing here is an object
 *   objects/<name>/.../+ab/abc    the object <name>/.../abc: a folder per name, then one for the first two
 *                                 characters of the last name, so that a million content-addressed objects beside
 *                                 each other are 4,000 to a folder, and are still listed in the order of their keys
 * An upper-case letter is spelled '^' and its lower case, so that keys differing in case stay apart on every file
 * system. '+' and '^' are in no key.
 */

export const layoutMarker = 'holdfast objects 1\n';

/** Characters of a last name that choose its folder. */
const fanOutLength = 2;

const spell = (name: string) => name.replace(/[A-Z]/g, (letter) => `^${letter.toLowerCase()}`);
const unspell = (spelled: string) => spelled.replace(/\^([a-z])/g, (_, letter: string) => letter.toUpperCase());

/** Folder names from `objects/` down, and the file's name, of a valid key. */
export function placeOf(key: string): { folders: string[]; file: string } {
  const names = key.split('/');
  const last = names.pop()!;
  return { folders: [...names.map(spell), `+${spell(last.slice(0, fanOutLength))}`], file: spell(last) };
}

export interface FolderEntry {
  name: string;
  isFolder: boolean;
}

/**
 * A part of a folder: everything below it whose key, from the folder's own on, begins with `start`.
 * Groups in the order of `start`, one read after the other, give all keys in order.
 */
export interface FolderGroup {
  start: string;
  /** The folder that holds the group's files, when there is one. */
  fanOut: string | undefined;
  /** Folders for further names: the name in the key, and on disk. */
  folders: { name: string; spelled: string }[];
}

/** The groups of a folder under `objects/`, in order. Entries that this layout does not write are left out. */
export function groupFolder(entries: Iterable<FolderEntry>): FolderGroup[] {
  const groups = new Map<string, FolderGroup>();
  const groupAt = (start: string) => {
    const group = groups.get(start) ?? { start, fanOut: undefined, folders: [] };
    groups.set(start, group);
    return group;
  };
  for (const entry of entries) {
    if (!entry.isFolder) continue;
    if (entry.name.startsWith('+')) {
      groupAt(unspell(entry.name.slice(1))).fanOut = entry.name;
    } else {
      // Keys below the folder go on with a '/', which takes part in the order: 'a-b' < 'a/b' < 'ab'.
      const name = unspell(entry.name);
      groupAt(`${name}/`.slice(0, fanOutLength)).folders.push({ name, spelled: entry.name });
    }
  }
  return [...groups.values()].sort((a, b) => compareKeys(a.start, b.start));
}

export type GroupMember = { rest: string; file: string } | { rest: string; folder: string };

/** The members of a group in the order of their keys; `rest` is what each adds to the folder's own key. */
export function groupMembers(group: FolderGroup, fileNames: Iterable<string>): GroupMember[] {
  const members: GroupMember[] = group.folders.map(({ name, spelled }) => ({ rest: `${name}/`, folder: spelled }));
  for (const file of fileNames) members.push({ rest: unspell(file), file });
  return members.sort((a, b) => compareKeys(a.rest, b.rest));
}

/** Whether a key that begins with `start` can begin with `prefix` and come after `after`. */
export function mayHold(start: string, wanted: { prefix: string; after: string }): boolean {
  const inPrefix = start.startsWith(wanted.prefix) || wanted.prefix.startsWith(start);
  return inPrefix && (start > wanted.after || wanted.after.startsWith(start));
}

// Keys are ASCII, so the order of code units is the order of bytes.
function compareKeys(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
