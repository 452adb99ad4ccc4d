/** Ways to folders that somebody else named, over links that one may trust and links that one may not. */
import {
  chmodSync,
  chownSync,
  existsSync,
  lchownSync,
  mkdirSync,
  readdirSync,
  realpathSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { heldOpenBelow, scratchFolder } from '../files/test-tree.ts';
import { openWay, type WayOptions } from './open-way.ts';

let scratch: ReturnType<typeof scratchFolder>;
let at: string;
beforeEach(() => {
  scratch = scratchFolder();
  at = realpathSync(scratch.path);
});
afterEach(() => {
  expect(heldOpenBelow(at)).toEqual([]);
  scratch.remove();
});

/** Where a way leads, or the reason why there is none. */
async function wayTo(path: string, options: Partial<WayOptions> = {}): Promise<string> {
  try {
    const folder = await openWay(Buffer.from(path), { make: false, ...options });
    try {
      await folder.guard();
      return readdirSync(folder.localPath).join() || 'empty';
    } finally {
      await folder.close();
    }
  } catch (error) {
    return (error as { reason?: string }).reason ?? String(error);
  }
}

const me = process.geteuid!();
const somebody = 4_242;
const asRoot = me === 0 ? test : test.skip;

describe.each([
  ['from open folders', true],
  ['by whole paths', false],
])('%s', (_, folderHandles) => {
  const how = { folderHandles };

  test('it leads to a folder, makes what is missing when asked to, and ends at what is none', async () => {
    mkdirSync(join(at, 'a/b'), { recursive: true });
    writeFileSync(join(at, 'a/b/f'), '');
    expect(await wayTo(`${at}/a/b`, how)).toBe('f');
    expect(await wayTo(`${at}/a/b/f`, how)).toBe('not_folder');
    expect(await wayTo(`${at}/a/b/f/g`, { ...how, make: true })).toBe('not_folder');
    expect(await wayTo(`${at}/a/c/d`, how)).toBe('missing');
    expect(existsSync(join(at, 'a/c'))).toBe(false);
    const umask = process.umask(0o022);
    expect(await wayTo(`${at}/a/c/d`, { ...how, make: true })).toBe('empty');
    process.umask(umask);
    expect(statSync(join(at, 'a/c')).mode & 0o777).toBe(0o755);
    expect(await wayTo('/', how)).toContain('tmp');
  });

  test('links of ours are followed, whole, relative and upwards; not in circles', async () => {
    mkdirSync(join(at, 'real/deep'), { recursive: true });
    writeFileSync(join(at, 'real/deep/f'), '');
    symlinkSync(`${at}/real`, join(at, 'whole'));
    symlinkSync('./real//deep', join(at, 'relative'));
    symlinkSync('../../real', join(at, 'real/deep/up'));
    symlinkSync('round', join(at, 'round'));
    symlinkSync('nowhere', join(at, 'dangling'));
    expect(await wayTo(`${at}/whole/deep`, how)).toContain('f');
    expect(await wayTo(`${at}/relative`, how)).toContain('f');
    expect(await wayTo(`${at}/whole/deep/up/deep`, how)).toContain('f');
    expect(await wayTo(`${at}/round`, how)).toBe('link_refused');
    expect(await wayTo(`${at}/dangling`, how)).toBe('missing');
  });

  asRoot('a link that somebody else laid, or could have laid, is not', async () => {
    mkdirSync(join(at, 'etc'));
    writeFileSync(join(at, 'etc/passwd'), '');
    const cases: [string, { owner: number; mode: number; link: number }, string][] = [
      ["root's in root's folder", { owner: 0, mode: 0o755, link: 0 }, 'passwd'],
      ["somebody's in root's folder", { owner: 0, mode: 0o755, link: somebody }, 'link_refused'],
      ["root's in somebody's folder", { owner: somebody, mode: 0o755, link: 0 }, 'link_refused'],
      ["root's in a folder of a group", { owner: 0, mode: 0o775, link: 0 }, 'link_refused'],
      ["root's in a folder of all", { owner: 0, mode: 0o777, link: 0 }, 'link_refused'],
      ["root's in a folder like the one for temporary files", { owner: 0, mode: 0o1777, link: 0 }, 'passwd'],
      [
        "somebody's in a folder like the one for temporary files",
        { owner: 0, mode: 0o1777, link: somebody },
        'link_refused',
      ],
    ];
    for (const [what, { owner, mode, link }, expected] of cases) {
      const folder = join(at, what);
      mkdirSync(folder);
      symlinkSync('../etc', join(folder, 'docs'));
      lchownSync(join(folder, 'docs'), link, link);
      chownSync(folder, owner, owner);
      chmodSync(folder, mode);
      expect({ what, led: await wayTo(`${folder}/docs`, how) }).toEqual({ what, led: expected });
    }
  });

  asRoot('an agent that is not root trusts its own links, and no others but those of root', async () => {
    mkdirSync(join(at, 'data'));
    writeFileSync(join(at, 'data/f'), '');
    symlinkSync('data', join(at, 'mine'));
    symlinkSync('data', join(at, 'roots'));
    symlinkSync('data', join(at, 'theirs'));
    lchownSync(join(at, 'mine'), somebody, somebody);
    lchownSync(join(at, 'theirs'), 999, 999);
    chownSync(at, somebody, somebody);
    const as = { ...how, uid: somebody };
    expect(await wayTo(`${at}/mine`, as)).toBe('f');
    expect(await wayTo(`${at}/roots`, as)).toBe('f');
    expect(await wayTo(`${at}/theirs`, as)).toBe('link_refused');
    expect(await wayTo(`${at}/mine`, { ...how, uid: null })).toBe('link_refused'); // Windows
  });

  asRoot('what root makes on the way belongs to whom the folder belongs that it is made in', async () => {
    if (!folderHandles) return;
    chownSync(at, somebody, somebody);
    expect(await wayTo(`${at}/new/folder`, { ...how, make: true })).toBe('empty');
    for (const name of ['new', 'new/folder']) expect(statSync(join(at, name)).uid).toBe(somebody);
  });
});

test('a folder that cannot be listed is no hindrance on the way', async () => {
  mkdirSync(join(at, 'closed/open'), { recursive: true });
  chmodSync(at, 0o755);
  chmodSync(join(at, 'closed'), 0o711);
  if (me === 0) process.seteuid!(65_534);
  try {
    expect(await wayTo(`${at}/closed/open`)).toBe('empty');
    expect(await wayTo(`${at}/closed/new`, { make: true })).toBe(me === 0 ? 'not_allowed' : 'empty');
  } finally {
    if (me === 0) process.seteuid!(0);
  }
});
