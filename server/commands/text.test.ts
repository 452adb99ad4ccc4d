import { expect, test } from '@jest/globals';
import { bytesInWords, counted, momentInWords, printable, table } from './text.ts';

test.each([
  [0, '0 B'],
  [1, '1 B'],
  [1_023, '1023 B'],
  [1_024, '1.0 KiB'],
  [1_536, '1.5 KiB'],
  [1024 ** 2 - 1, '1024.0 KiB'],
  [1024 ** 4, '1.0 TiB'],
  [5 * 1024 ** 6, '5120.0 PiB'],
  [-2_048, '-2.0 KiB'],
])('%d bytes are %s', (bytes, words) => {
  expect(bytesInWords(bytes)).toBe(words);
});

test('names cannot steer a terminal', () => {
  expect(printable('a\u001b[31mb\r\nc')).toBe('a\\u001b[31mb\\u000d\\u000ac');
  expect(printable('x\u202egnp.exe\u2028\u009b')).toBe('x\\u202egnp.exe\\u2028\\u009b');
  expect(printable('Ünïcode 文件 👩')).toBe('Ünïcode 文件 👩');
});

test('columns are as wide as they need to be, numbers to the right', () => {
  expect(
    table(
      ['NAME', '>SIZE'],
      [
        ['a', '1'],
        ['longer', '12345'],
        ['\n', ''],
      ],
    ),
  ).toEqual(['NAME     SIZE', 'a           1', 'longer  12345', '\\u000a']);
  expect(table(['NAME'], [])).toEqual(['NAME']);
});

test('counts and moments', () => {
  expect([counted(1, 'file'), counted(0, 'file'), counted(2, 'file')]).toEqual(['1 file', '0 files', '2 files']);
  expect(momentInWords('2026-01-02T03:04:05.678Z')).toBe('2026-01-02 03:04:05Z');
  expect(momentInWords(null)).toBe('never');
});
