import { expect, test } from '@jest/globals';
import { toArchivePath } from '../../../../agent/files/path-rules.ts';
import { limits } from '../../../../protocol/limits.ts';
import { readFolder } from './folders.ts';

test.each<[text: string, path: string]>([
  ['/home', '/home'],
  ['/home/', '/home'],
  ['/home//ann', '/home/ann'],
  ['/', '/'],
  ['/Users/ann/Library/Mobile Documents', '/Users/ann/Library/Mobile Documents'],
  ['/m\u00fcller', '/m\u00fcller'],
  ['C:\\Users', '/C:/Users'],
  ['c:\\Users\\ann\\', '/C:/Users/ann'],
  ['C:/Users/ann', '/C:/Users/ann'],
  ['d:\\', '/D:'],
  ['C:\\Program Files (x86)', '/C:/Program Files (x86)'],
  ['\\\\server\\share\\x', '/UNC/server/share/x'],
  ['\\\\server\\C$', '/UNC/server/C$'],
  ['\\\\?\\c:\\long', '/C:/long'],
  ['\\\\?\\UNC\\server\\share', '/UNC/server/share'],
])('%s is %s in the archive, where the agent takes it', (text, path) => {
  const isOfWindows = !text.startsWith('/');
  const { folder } = readFolder(text);
  expect(folder?.path.toString()).toBe(path);
  expect(folder?.anyCase).toBe(isOfWindows);
  expect(toArchivePath(text, isOfWindows ? 'win32' : 'linux')).toEqual(folder!.path);
});

test.each<[text: string, why: string]>([
  ['~', 'no absolute path'],
  ['~/Documents', 'no absolute path'],
  ['Documents', 'no absolute path'],
  ['$HOME/x', 'no absolute path'],
  ['%USERPROFILE%\\x', 'no absolute path'],
  ['', 'no absolute path'],
  ['C:', 'no absolute path'], // the folder that is current there
  ['C:Users', 'no absolute path'],
  ['\\Users', 'no absolute path'],
  ['//server/share', 'two slashes'], // a share on Windows, and a folder elsewhere
  ['/home/*', 'wildcard'],
  ['C:\\Users\\*\\Documents', 'wildcard'],
  ['/home/ann?', 'wildcard'],
  ['/home/../etc', "'.' or '..'"],
  ['/home/.', "'.' or '..'"],
  ['C:\\Users\\..', "'.' or '..'"],
  ['\\\\server', 'no share'],
  ['\\\\', 'no share'],
  ['\\\\.\\PhysicalDrive0', 'without a letter'],
  ['\\\\?\\Volume{1}\\x', 'without a letter'],
  [`/${'x'.repeat(limits.nameBytesMax + 1)}`, 'longer than'],
])('%s names no folder: %s', (text, why) => {
  const read = readFolder(text);
  expect(read.folder).toBeUndefined();
  expect(read.fault).toContain(why);
});
