/** Where commands restore to: decided by paths alone. */
import { describe, expect, test } from '@jest/globals';
import type { RestoreCommand } from '../../protocol/commands.ts';
import { placeFault, withoutNested } from './places.ts';

const paths = (...texts: string[]): Buffer[] => texts.map((text) => Buffer.from(text));
const texts = (buffers: readonly Buffer[]): string[] => buffers.map(String);

describe('paths in order, none in another', () => {
  test.each([
    [
      ['/b', '/a'],
      ['/a', '/b'],
    ],
    [['/a/b', '/a'], ['/a']],
    [['/a', '/a'], ['/a']],
    [
      ['/a b', '/a/b', '/a'],
      ['/a', '/a b'],
    ],
    [['/', '/a'], ['/']],
    [
      ['/a!', '/a/b'],
      ['/a/b', '/a!'],
    ],
  ])('%j', (given, expected) => expect(texts(withoutNested(paths(...given)))).toEqual(expected));
});

describe('original places', () => {
  const command = (sourcePlatform: string, path = '/home/me', target: RestoreCommand['target'] = { original: true }) =>
    ({ sourcePlatform, target, paths: paths(path) }) as RestoreCommand;
  test.each([
    ['linux', 'linux', null],
    ['win32', 'linux', 'Windows'],
    ['darwin', 'linux', 'macOS'],
    ['linux', 'win32', 'Linux'],
    ['other', 'linux', 'different Unix'],
    ['other', 'freebsd', null],
  ])('of %s on %s', (source, here, why) => {
    const fault = placeFault(command(source), { systemPlatform: here });
    if (why === null) expect(fault).toBeNull();
    else expect(fault).toContain(why);
  });

  test('are on Windows below drives', () => {
    expect(placeFault(command('win32', '/'), { systemPlatform: 'win32' })).toContain('drive by drive');
    expect(placeFault(command('win32', '/C:'), { systemPlatform: 'win32' })).toBeNull();
  });

  test('do not matter to a folder', () => {
    const folder = { folder: Buffer.from('/tmp') };
    expect(placeFault(command('win32', '/', folder), { systemPlatform: 'linux' })).toBeNull();
  });
});
