import { describe, expect, test } from '@jest/globals';
import {
  commonFolder,
  foldName,
  joinLocal,
  markedName,
  PathRuleError,
  restoredName,
  toArchivePath,
  toLocalPath,
} from './path-rules.ts';
import type { LocalPath, Platform } from './types.ts';
import { decodeWtf8, encodeWtf8 } from './wtf8.ts';

const bytes = (text: string): Buffer => Buffer.from(text, 'latin1');

describe('a local path and its archive path', () => {
  const pairs: [Platform, LocalPath, string][] = [
    ['linux', Buffer.from('/'), '/'],
    ['linux', Buffer.from('/home/me/a b'), '/home/me/a b'],
    ['linux', Buffer.from('/a\\b:c*\n'), '/a\\b:c*\n'],
    ['linux', bytes('/not utf8 \xff\xfe'), '/not utf8 \xff\xfe'],
    ['linux', Buffer.from('/C:/x'), '/C:/x'],
    ['darwin', Buffer.from('/Users/me/e\u0301'), '/Users/me/e\xcc\x81'],
    ['darwin', Buffer.from('/Users/me/\u00e9'), '/Users/me/\xc3\xa9'],
    ['win32', '\\\\?\\C:\\', '/C:'],
    ['win32', '\\\\?\\C:\\Users\\me\\a.txt', '/C:/Users/me/a.txt'],
    ['win32', '\\\\?\\D:\\CON\\nul.txt', '/D:/CON/nul.txt'],
    ['win32', '\\\\?\\D:\\ends in a dot.\\and a space ', '/D:/ends in a dot./and a space '],
    ['win32', '\\\\?\\UNC\\server\\share', '/UNC/server/share'],
    ['win32', '\\\\?\\UNC\\server\\share\\a\\b', '/UNC/server/share/a/b'],
    ['win32', '\\\\?\\C:\\lone \ud800 half', '/C:/lone \xed\xa0\x80 half'],
    ['win32', '\\\\?\\C:\\pair \u{1f600}', '/C:/pair \xf0\x9f\x98\x80'],
  ];
  test.each(pairs)('%s %j <-> %j', (platform, local, archive) => {
    expect(toArchivePath(local, platform)).toEqual(bytes(archive));
    expect(toLocalPath(bytes(archive), platform)).toEqual(local);
  });

  const spellings: [Platform, LocalPath, string][] = [
    ['win32', 'c:\\Users', '/C:/Users'],
    ['win32', 'C:/Users/me/', '/C:/Users/me'],
    ['win32', 'C:', '/C:'],
    ['win32', '\\\\server\\share\\a', '/UNC/server/share/a'],
    ['win32', '//server/share/a', '/UNC/server/share/a'],
    ['linux', Buffer.from('//a///b/'), '/a/b'],
    ['linux', '/héh', '/h\xc3\xa9h'],
  ];
  test.each(spellings)('%s %j is also %j', (platform, local, archive) => {
    expect(toArchivePath(local, platform)).toEqual(bytes(archive));
  });

  const refused: [Platform, LocalPath][] = [
    ['linux', 'a/b'],
    ['linux', ''],
    ['linux', '/a/../b'],
    ['linux', '/a/./b'],
    ['linux', '/a\0b'],
    ['linux', `/${'n'.repeat(2_049)}`],
    ['linux', '/a'.repeat(513)],
    ['win32', 'C:a'],
    ['win32', 'a\\b'],
    ['win32', '\\a'],
    ['win32', '1:\\a'],
    ['win32', 'C:\\a\\..\\b'],
    ['win32', '\\\\.\\PhysicalDrive0'],
    ['win32', '\\\\?\\Volume{b75e2c83-0000-0000-0000-602f00000000}\\a'],
    ['win32', '\\\\?\\GLOBALROOT\\Device'],
    ['win32', '\\\\server'],
  ];
  test.each(refused)('%s %j is refused', (platform, local) => {
    expect(() => toArchivePath(local, platform)).toThrow(PathRuleError);
  });

  test.each([['/etc'], ['/c:/a'], ['/UNC/server'], ['/C:/a\\b'], ['/C:/\xff']])(
    '%j has no place on Windows',
    (archive) => {
      expect(() => toLocalPath(bytes(archive), 'win32')).toThrow(PathRuleError);
    },
  );

  test('names are joined as the platform does', () => {
    expect(joinLocal(Buffer.from('/'), bytes('\xff'), 'linux')).toEqual(bytes('/\xff'));
    expect(joinLocal(Buffer.from('/a'), Buffer.from('b'), 'darwin')).toEqual(Buffer.from('/a/b'));
    expect(joinLocal('\\\\?\\C:\\', 'a', 'win32')).toBe('\\\\?\\C:\\a');
    expect(joinLocal('C:\\a', 'b', 'win32')).toBe('C:\\a\\b');
  });
});

describe('WTF-8', () => {
  test.each(['', 'abc', 'é', '\u{10ffff}', '\ud800', '\udc00', 'a\udfffb\ud800', '\udc00\ud800', '\u{1f600}\ud83d'])(
    '%j survives',
    (text) => {
      expect(decodeWtf8(encodeWtf8(text))).toBe(text);
      if (text.isWellFormed()) expect(encodeWtf8(text)).toEqual(Buffer.from(text));
    },
  );

  test.each(['\xff', '\xc0\x80', '\xe0\x80\x80', '\xf0\x80\x80\x80', '\xf4\x90\x80\x80', '\xc3', 'a\xe2\x82', '\x80'])(
    '%j is not WTF-8',
    (text) => {
      expect(decodeWtf8(bytes(text))).toBeNull();
    },
  );
});

describe('the name a restored file gets', () => {
  const rows: [Platform, string, string, boolean][] = [
    ['linux', 'plain.txt', 'plain.txt', false],
    ['linux', 'a\\b:c*?\n\xff', 'a\\b:c*?\n\xff', false],
    ['linux', 'CON', 'CON', false],
    ['darwin', 'a:b\\c', 'a:b\\c', false],
    ['darwin', 'e\xcc\x81', 'e\xcc\x81', false],
    ['darwin', 'bad \xff\xfe', 'bad %FF%FE', true],
    ['darwin', 'half \xed\xa0\x80', 'half %ED%A0%80', true],
    ['win32', 'plain.txt', 'plain.txt', false],
    ['win32', 'a<b>c:d"e|f?g*h', 'a%3Cb%3Ec%3Ad%22e%7Cf%3Fg%2Ah', true],
    ['win32', 'back\\slash', 'back%5Cslash', true],
    ['win32', 'line\nfeed', 'line%0Afeed', true],
    ['win32', 'dot.', 'dot%2E', true],
    ['win32', 'space ', 'space%20', true],
    ['win32', '...', '..%2E', true],
    ['win32', 'con', '%63on', true],
    ['win32', 'NUL.tar.gz', '%4EUL.tar.gz', true],
    ['win32', 'COM1', '%43OM1', true],
    ['win32', 'LPT\xc2\xb2', '%4CPT\u00b2', true],
    ['win32', 'aux .txt', '%61ux .txt', true],
    ['win32', 'CONsole', 'CONsole', false],
    ['win32', 'COM10', 'COM10', false],
    ['win32', 'file:stream', 'file%3Astream', true],
    ['win32', 'bad \xff', 'bad %FF', true],
    ['win32', 'half \xed\xa0\x80', 'half \ud800', false],
  ];
  test.each(rows)('%s %j -> %j', (platform, name, expected, changed) => {
    const restored = restoredName(bytes(name), platform);
    const wanted =
      platform === 'win32'
        ? expected
        : platform === 'linux'
          ? bytes(expected)
          : Buffer.from(expected.replace(/[\x80-\xff]+/g, (run) => bytes(run).toString()));
    expect(restored).toEqual({ name: wanted, changed });
  });

  test.each<[Platform]>([['linux'], ['darwin'], ['win32']])(
    '%s: a name too long is cut behind a hash, and never to the same name',
    (platform) => {
      const [a, b] = ['a', 'b'].map((last) => restoredName(Buffer.from('é'.repeat(300) + last), platform));
      expect(a!.changed).toBe(true);
      expect(a!.name).not.toEqual(b!.name);
      const length = platform === 'linux' ? (a!.name as Buffer).byteLength : a!.name.toString().length;
      expect(length).toBeLessThanOrEqual(255);
      expect(length).toBeGreaterThan(250);
      expect(a!.name.toString()).not.toContain('\ufffd');
    },
  );

  test('255 bytes is not too long', () => {
    expect(restoredName(Buffer.alloc(255, 'a'), 'linux').changed).toBe(false);
    expect(restoredName(Buffer.alloc(256, 'a'), 'linux').changed).toBe(true);
  });
});

describe('names that meet', () => {
  const rows: [Platform, boolean, string, string, boolean][] = [
    ['linux', true, 'A', 'a', false],
    ['linux', false, 'A', 'a', true],
    ['darwin', false, 'Straße', 'STRASSE', true],
    ['darwin', false, '\u00e9', 'e\u0301', true],
    ['darwin', true, '\u00e9', 'e\u0301', true],
    ['darwin', true, 'A', 'a', false],
    ['win32', false, 'ReadMe', 'README', true],
    ['win32', false, '\u00e9', 'e\u0301', false],
    ['win32', false, 'a', 'b', false],
  ];
  test.each(rows)('%s, case sensitive %j: %j and %j: %j', (platform, caseSensitive, a, b, meet) => {
    const [x, y] = [a, b].map((name) =>
      foldName(platform === 'win32' ? name : Buffer.from(name), platform, caseSensitive),
    );
    expect(x === y).toBe(meet);
  });

  test.each<[Platform, LocalPath, string, LocalPath]>([
    ['linux', Buffer.from('a.txt'), ' (2)', Buffer.from('a (2).txt')],
    ['linux', Buffer.from('.bashrc'), ' (2)', Buffer.from('.bashrc (2)')],
    ['linux', bytes('\xff.b'), ' (3)', bytes('\xff (3).b')],
    ['win32', 'archive.tar.gz', ' (2)', 'archive.tar (2).gz'],
    ['win32', 'name', ' (before restore)', 'name (before restore)'],
  ])('%s %j + %j', (platform, name, mark, expected) => {
    expect(markedName(name, mark, platform)).toEqual(expected);
  });

  test.each<[Platform]>([['linux'], ['darwin'], ['win32']])('%s: a marked name is never too long', (platform) => {
    for (const name of [`${'é'.repeat(127)}`, `${'x'.repeat(251)}.txt`, 'x'.repeat(255)]) {
      const marked = markedName(platform === 'win32' ? name : Buffer.from(name), ' (before restore 12)', platform);
      expect(platform === 'linux' ? (marked as Buffer).byteLength : marked.toString().length).toBeLessThanOrEqual(255);
      expect(marked.toString()).toContain(' (before restore 12)');
      expect(marked.toString()).not.toContain('\ufffd');
    }
  });
});

describe('the folder that all paths lie in', () => {
  test.each([
    [[], '/'],
    [['/a/b'], '/a'],
    [['/a'], '/'],
    [['/'], '/'],
    [['/', '/a/b'], '/'],
    [['/a/b', '/a/b'], '/a'],
    [['/a/b/c', '/a/b/d'], '/a/b'],
    [['/a/b/c', '/a/bc/d'], '/a'],
    [['/a/b', '/c'], '/'],
    [['/a/b', '/a/b2/c/d'], '/a'],
    [['/a/b/c/d', '/a/b'], '/a'],
  ])('of %j is %s', (paths, folder) =>
    expect(String(commonFolder(paths.map((path) => Buffer.from(path))))).toBe(folder),
  );
});
