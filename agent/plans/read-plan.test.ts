import { describe, expect, test } from '@jest/globals';
import type { PlanMessage } from '../../protocol/messages.ts';
import { createExcludes } from '../files/excludes.ts';
import type { Platform } from '../files/types.ts';
import { combineExcludes } from './combine-excludes.ts';
import { findHere, type Here, readPlan } from './read-plan.ts';

const homes: Record<Platform, string> = { linux: '/home/me', darwin: '/Users/me', win32: 'C:\\Users\\me' };
const hereOn = (platform: Platform): Here => ({ platform, home: homes[platform], homes: [homes[platform]] });
const nobody: Here = { platform: 'linux', home: null, homes: [] };

function plan(more: Partial<PlanMessage> = {}): PlanMessage {
  const from = { kind: 'organization', name: 'Sales' } as const;
  return { name: 'documents', include: [], exclude: [], everyMinutes: 60, windows: [], from, ...more };
}
const ofDevice = { kind: 'device', name: 'laptop' } as const;

describe('a folder', () => {
  test.each<[Platform, string, string]>([
    ['linux', '/srv/data', '/srv/data'],
    ['linux', '/srv//data/', '/srv/data'],
    ['linux', '/', '/'],
    ['linux', '~', '/home/me'],
    ['linux', '~/', '/home/me'],
    ['linux', '~/Documents', '/home/me/Documents'],
    ['linux', '/srv/{a}[b]', '/srv/{a}[b]'],
    ['darwin', '~/Documents', '/Users/me/Documents'],
    ['win32', '~\\Documents', 'C:\\Users\\me\\Documents'],
    ['win32', '~/Documents', 'C:\\Users\\me\\Documents'],
    ['win32', 'D:\\Data', 'D:\\Data'],
    ['win32', 'd:\\', 'd:\\'],
    ['win32', '\\\\?\\D:\\long', '\\\\?\\D:\\long'],
    ['win32', 'D:/Data', 'D:\\Data'],
    ['win32', '/D:/Data', 'D:\\Data'],
    ['win32', '/D:', 'D:\\'],
    ['win32', '\\\\server\\share\\a', '\\\\server\\share\\a'],
    ['win32', '/UNC/server/share/a', '\\\\server\\share\\a'],
  ])('%s: %s is %s', (platform, text, folder) => {
    expect(readPlan(plan({ include: [text] }), hereOn(platform))).toMatchObject({
      folders: [folder],
      elsewhere: [],
      faults: [],
    });
  });

  test.each<[Platform, string]>([
    ['linux', 'C:\\Data'],
    ['linux', '\\\\server\\share'],
    ['linux', '~\\Documents'],
    ['darwin', 'D:/Data'],
    ['win32', '/srv/data'],
  ])("%s: %s is another platform's: left to those devices, and a mistake in a plan of this one", (platform, text) => {
    const asked = { include: [text, '~'] };
    expect(readPlan(plan(asked), hereOn(platform))).toMatchObject({ elsewhere: [text], faults: [] });
    const { faults } = readPlan(plan({ ...asked, from: ofDevice }), hereOn(platform));
    expect(faults).toEqual([`the folder ${text} is a path of another platform`]);
  });

  test.each<[string]>([
    ['Documents'],
    ['./x'],
    ['~bob/x'],
    ['/home/*'],
    ['/srv/?'],
    ['C:\\Users\\*'],
    [' /srv'],
    ['C'],
    ['C:'],
    ['C:Users'],
    ['\\Users'],
    ['//server/share'],
    ['/home/../etc'],
    ['/home/.'],
    ['~/../you'],
    ['C:\\Users\\..'],
    ['\\\\server'],
    ['$HOME/x'],
    [`/${'x'.repeat(2_049)}`],
  ])('%j cannot be understood, and is named', (text) => {
    const { faults } = readPlan(plan({ include: ['/ok', text] }), hereOn('linux'));
    expect(faults).toEqual([expect.stringContaining(`the folder ${text} `)]);
  });

  test('that is named twice is one, and none is the home folders', () => {
    expect(readPlan(plan({ include: ['~/a', '/home/me/a/'] }), hereOn('linux')).folders).toEqual(['/home/me/a']);
    const two = { ...hereOn('linux'), homes: ['/root', '/home'] };
    expect(readPlan(plan(), two)).toMatchObject({ folders: ['/root', '/home'], faults: [] });
  });

  test('in a home that is not there is a mistake', () => {
    expect(readPlan(plan(), nobody).faults).toHaveLength(1);
    expect(readPlan(plan({ include: ['~/a'] }), nobody).faults).toHaveLength(1);
    expect(readPlan(plan({ include: ['/a'], exclude: ['~/b', '!~/c', 'd'] }), nobody).faults).toHaveLength(2);
  });
});

test('the home of an account that has none is no folder to back up', () => {
  const around = { env: {}, platform: 'linux', isRoot: false };
  expect(findHere({ ...around, homeDir: '/' })).toEqual({ platform: 'linux', home: null, homes: [] });
  expect(findHere({ ...around, homeDir: '/nonexistent-home' })).toMatchObject({ home: null, homes: [] });
  expect(findHere({ ...around, homeDir: '/usr' }).homes).toEqual(['/usr']);
});

describe('a pattern', () => {
  test.each([['[z-a].txt'], ['{a,b'], ['[abc'], ['/'], ['!'], ['x'.repeat(4_097)]])(
    'that cannot be read is named: %s',
    (pattern) => {
      const { faults } = readPlan(plan({ exclude: ['*.tmp', pattern] }), hereOn('linux'));
      expect(faults).toEqual([expect.stringContaining(pattern.slice(0, 64))]);
    },
  );

  // What the server's own tests, its documentation and the default settings write.
  test.each([
    ['*.tmp'],
    ['*.iso'],
    ['~/Downloads'],
    ['node_modules/'],
    ['/srv/**/cache/'],
    ['C:\\Temp\\*'],
    ['*.{jpg,png}'],
  ])('as administrators write it is read on every platform: %s', (pattern) => {
    for (const platform of ['linux', 'darwin', 'win32'] as const)
      expect(readPlan(plan({ exclude: [pattern] }), hereOn(platform)).faults).toEqual([]);
  });
});

describe('excludes of plans that have their turn together', () => {
  const of = (roots: string[], patterns: string[]) => ({
    roots: roots.map((root) => Buffer.from(root)),
    excludes: createExcludes({ platform: 'linux', home: null, patterns, defaults: false }),
  });
  const all = of(['/h'], ['*.iso', 'music/']);

  test.each<[string, ReturnType<typeof of>[], string, boolean]>([
    ['alone', [], '/h/a.iso', true],
    ['alone', [], '/h/a.txt', false],
    ['the other leaves nothing out', [of(['/h'], [])], '/h/a.iso', false],
    ['the other leaves it out too', [of(['/h'], ['a.*'])], '/h/a.iso', true],
    ['the other leaves out something else', [of(['/h'], ['*.txt'])], '/h/a.txt', false],
    ['the other does not cover it', [of(['/h/music'], [])], '/h/a.iso', true],
    ['the other covers it, and leaves it in', [of(['/h/music'], [])], '/h/music/a.iso', false],
    ['a folder left out on the way, of both', [of(['/h/music'], ['*.iso'])], '/h/music/a.iso', true],
    ['a folder left out on the way, of one', [of(['/h/music'], ['*.iso'])], '/h/music/a.mp3', false],
    ['the other lies above', [of(['/'], [])], '/h/a.iso', false],
    ['the other lies above and leaves out the way', [of(['/'], ['/h'])], '/h/a.iso', true],
    ['the other lies elsewhere', [of(['/x'], [])], '/h/a.iso', true],
    ['two others, one of which wants it', [of(['/h'], ['*.iso']), of(['/h'], [])], '/h/a.iso', false],
  ])('%s: %# %s', (_, others, path, excluded) => {
    expect(combineExcludes(all, others).match(Buffer.from(path), 'file') !== null).toBe(excluded);
  });

  test('the folder of one is gone into though the other leaves it out', () => {
    const combined = combineExcludes(all, [of(['/h/music'], [])]);
    expect(combined.match(Buffer.from('/h/music'), 'directory')).toBeNull();
    expect(combined.match(Buffer.from('/h/x/music'), 'directory')).not.toBeNull();
  });
});
