import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import type { FileKind } from '../../protocol/messages.ts';
import { defaultExcludes } from './default-excludes.ts';
import { createExcludes, excludedBy } from './excludes.ts';
import type { Platform } from './types.ts';

const home: Record<Platform, Buffer> = {
  linux: Buffer.from('/home/me'),
  darwin: Buffer.from('/Users/me'),
  win32: Buffer.from('/C:/Users/me'),
};

function verdict(platform: Platform, patterns: string[], path: string, kind: FileKind = 'file'): boolean {
  const excludes = createExcludes({ platform, home: home[platform], patterns, defaults: false });
  return excludes.match(Buffer.from(path), kind) !== null;
}

describe("the user's rules", () => {
  const rows: [Platform, string[], string, FileKind, boolean][] = [
    ['linux', ['*.iso'], '/data/a.iso', 'file', true],
    ['linux', ['*.iso'], '/data/.hidden.iso', 'file', true],
    ['linux', ['*.iso'], '/data/a.iso/b', 'file', false],
    ['linux', ['*.ISO'], '/data/a.iso', 'file', false],
    ['darwin', ['*.ISO'], '/data/a.iso', 'file', true],
    ['linux', ['node_modules'], '/a/node_modules', 'directory', true],
    ['linux', ['node_modules/'], '/a/node_modules', 'directory', true],
    ['linux', ['node_modules/'], '/a/node_modules', 'file', false],
    ['linux', ['node_modules/'], '/a/node_modules', 'symlink', false],
    ['linux', ['/a/b'], '/a/b', 'file', true],
    ['linux', ['/a/b'], '/x/a/b', 'file', false],
    ['linux', ['a/b'], '/x/a/b', 'file', true],
    ['linux', ['a/b'], '/a/b', 'file', true],
    ['linux', ['a/b'], '/xa/b', 'file', false],
    ['linux', ['/a/*'], '/a/b', 'file', true],
    ['linux', ['/a/*'], '/a/b/c', 'file', false],
    ['linux', ['/a/**'], '/a/b/c', 'file', true],
    ['linux', ['/a/**/z'], '/a/z', 'file', true],
    ['linux', ['/a/**/z'], '/a/b/c/z', 'file', true],
    ['linux', ['**/z'], '/a/z', 'file', true],
    ['linux', ['a?c'], '/abc', 'file', true],
    ['linux', ['[ab].txt'], '/b.txt', 'file', true],
    ['linux', ['*.{jpg,png}'], '/x.png', 'file', true],
    ['linux', ['~/Downloads'], '/home/me/Downloads', 'directory', true],
    ['linux', ['~/Downloads'], '/home/you/Downloads', 'directory', false],
    ['linux', ['*.log', '!keep.log'], '/keep.log', 'file', false],
    ['linux', ['*.log', '!keep.log'], '/other.log', 'file', true],
    ['linux', ['!keep.log', '*.log'], '/keep.log', 'file', true],
    ['linux', ['keep.log', '!*.log', '/keep.log'], '/keep.log', 'file', true],
    ['linux', ['# comment', '', '  '], '/# comment', 'file', false],
    ['linux', ['a\\*b'], '/a*b', 'file', true],
    ['linux', ['a\\*b'], '/axb', 'file', false],
    ['linux', ['(1).txt'], '/(1).txt', 'file', true],
    ['linux', ['"a".*'], '/"a".txt', 'file', true],
    ['linux', ['/Files (x86)/+*/@(a)'], '/Files (x86)/+1/@(a)', 'file', true],
    ['linux', ['*(a|b)'], '/xa', 'file', false],
    ['linux', ['[!a].txt'], '/b.txt', 'file', true],
    ['linux', ['[!a].txt'], '/a.txt', 'file', false],
    ['win32', ['C:\\Temp\\*'], '/C:/Temp/x', 'file', true],
    ['win32', ['c:\\temp'], '/C:/Temp', 'directory', true],
    ['win32', ['\\\\server\\share\\x'], '/UNC/server/share/x', 'file', true],
    ['win32', ['~\\Downloads\\'], '/C:/Users/me/Downloads', 'directory', true],
  ];
  test.each(rows)('%s %j %j (%s): %j', (platform, patterns, path, kind, excluded) => {
    expect(verdict(platform, patterns, path, kind)).toBe(excluded);
  });

  test('the answer names the rule', () => {
    const excludes = createExcludes({ platform: 'linux', home: null, patterns: ['*.iso'], defaults: true });
    expect(excludes.match(Buffer.from('/a.iso'), 'file')).toBe('rule *.iso');
    expect(excludes.match(Buffer.from('/proc'), 'directory')).toContain('default rule /proc/');
  });

  test("a file in a folder left out is left out by that folder's rule, unless its root lies deeper", () => {
    const excludes = createExcludes({ platform: 'linux', home: null, patterns: ['*.iso'], defaults: true });
    const why = (root: string, path: string) => {
      const found = excludedBy(excludes, { root: Buffer.from(root), path: Buffer.from(path), kind: 'file' });
      return found && `${found.path} ${found.rule}`;
    };
    expect(why('/', '/tmp/a/b')).toContain('/tmp default rule /tmp/');
    expect(why('/tmp', '/tmp/a/b')).toBeNull();
    expect(why('/tmp', '/tmp/a/b.iso')).toBe('/tmp/a/b.iso rule *.iso');
    expect(why('/tmp/b.iso', '/tmp/b.iso')).toBeNull();
  });

  test('names that are not UTF-8 are matched by what is text in them', () => {
    expect(
      createExcludes({ platform: 'linux', home: null, patterns: ['*.iso'], defaults: false }).match(
        Buffer.from('/\xff.iso', 'latin1'),
        'file',
      ),
    ).not.toBeNull();
  });

  test.each([['/'], ['!'], ['x'.repeat(5_000)]])('a rule that names nothing or is too long is refused', (pattern) => {
    expect(() => createExcludes({ platform: 'linux', home: null, patterns: [pattern], defaults: false })).toThrow(
      'exclude rule',
    );
  });
});

describe('a rule', () => {
  const read = (pattern: string) =>
    createExcludes({ platform: 'linux', home: null, patterns: [pattern], defaults: false });

  test.each(['[abc', 'a]b', '{a,b', '[z-a].txt', 'x/{a,b'])('that cannot be understood is refused: %s', (pattern) => {
    expect(() => read(pattern)).toThrow(`the exclude rule ${pattern} cannot be understood`);
  });

  test.each(['\\[abc', 'a\\]b*', '[z\\-a].txt', '[!a]'])('that is quoted or closed is taken: %s', (pattern) => {
    expect(() => read(pattern)).not.toThrow();
  });
});

describe('the default list', () => {
  const rows: [Platform, string, FileKind, boolean][] = [
    ['linux', '/proc', 'directory', true],
    ['linux', '/tmp', 'directory', true],
    ['linux', '/home/you/tmp', 'directory', false],
    ['linux', '/home/me/.cache', 'directory', true],
    ['linux', '/home/you/.cache', 'directory', true],
    ['linux', '/srv/project/.cache', 'directory', false],
    ['linux', '/home/you/.config/google-chrome/Default/Code Cache', 'directory', true],
    ['linux', '/home/you/.config/google-chrome/Default/Bookmarks', 'file', false],
    ['linux', '/mnt/disk/.Trash-1000', 'directory', true],
    ['linux', '/home/me/a.tmp', 'file', false],
    ['linux', '/home/me/node_modules', 'directory', false],
    ['darwin', '/Users/you/Library/Caches', 'directory', true],
    ['darwin', '/System/Volumes', 'directory', true],
    ['darwin', '/Users/you/Library/Application Support/Google/Chrome/Default/GPUCache', 'directory', true],
    ['darwin', '/Users/you/Documents', 'directory', false],
    ['win32', '/C:/pagefile.sys', 'file', true],
    ['win32', '/D:/$RECYCLE.BIN', 'directory', true],
    ['win32', '/C:/Users/you/AppData/Local/Temp', 'directory', true],
    ['win32', '/C:/Users/you/AppData/Local/Google/Chrome/User Data/Default/Cache', 'directory', true],
    ['win32', '/C:/Users/you/Documents/~$Letter.docx', 'file', true],
    ['win32', '/C:/Users/you/AppData/Roaming', 'directory', false],
  ];
  test.each(rows)('%s %j: %j', (platform, path, kind, excluded) => {
    const excludes = createExcludes({ platform, home: home[platform], patterns: [], defaults: true });
    expect(excludes.match(Buffer.from(path), kind) !== null).toBe(excluded);
  });

  test('every rule is in the documentation', () => {
    const page = readFileSync(new URL('../../docs/excludes.md', import.meta.url), 'utf8');
    for (const { pattern, why } of Object.values(defaultExcludes).flat()) {
      expect(page).toContain(`| \`${pattern}\` | ${why} |`);
    }
  });
});
