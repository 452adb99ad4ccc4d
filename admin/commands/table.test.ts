import { describe, expect, test } from '@jest/globals';
import { UsageError } from '../errors.ts';
import { confirm } from './ask.ts';
import { cut, printable, printableJson, widthOf } from './printable.ts';
import { detailLines, tableLines } from './table.ts';
import { valueInWords } from './words.ts';

const page = { properties: { id: {}, name: {}, state: {}, organization: {}, createdAt: {}, version: {} } };
const row = (id: number, name: string) => ({
  id,
  name,
  state: 'active',
  organization: { id: 3, name: 'Sales' },
  createdAt: '2026-03-01T10:20:30.000Z',
  version: 1,
});

describe('a table', () => {
  test('has the columns of the schema, what everything has last, and is aligned', () => {
    const { lines, leftOut } = tableLines([row(1, 'anna'), row(12, 'bo')], page, null);
    expect(lines[0]).toMatch(/^id {2}name {2}state {3}organization {2}createdAt {12}version$/);
    expect(lines[1]).toMatch(/^1 {3}anna {2}active {2}Sales \(3\) {5}2026-03-01 \d\d:20:30 {2}1$/);
    expect(lines[2]!.indexOf('bo')).toBe(lines[1]!.indexOf('anna'));
    expect(leftOut).toEqual([]);
  });

  test.each([200, 60, 40, 25, 12])('fits %i columns, whatever is in it', (width) => {
    const items = [row(1, 'x'.repeat(300)), row(2, '名'.repeat(100)), row(3, 'e\u0301'.repeat(100))];
    const { lines, leftOut } = tableLines(items, page, width);
    for (const line of lines) expect(widthOf(line)).toBeLessThanOrEqual(width);
    expect(lines).toHaveLength(4);
    expect(lines[0]!.startsWith('id')).toBe(true);
    // The least wanted go first.
    if (leftOut.length > 0) expect(leftOut.at(-1)).toBe('version');
  });

  test('shows moments whole, or not at all', () => {
    for (let width = 30; width <= 120; width++) {
      const { lines, leftOut } = tableLines([row(1, 'x'.repeat(300))], page, width);
      const isWhole = /2026-03-01 \d\d:20:30/.test(lines[1]!);
      expect([width, isWhole]).toEqual([width, !leftOut.includes('createdAt')]);
    }
  });

  test('shows what an item has beside its schema', () => {
    expect(tableLines([{ id: 1, more: true }], page, null).lines).toEqual(['id  more', '1   yes']);
    expect(tableLines(['PROe User'], {}, null).lines).toEqual(['value', 'PROe User']);
  });
});

test('one thing is lines of name and value, what is inside with dots', () => {
  const thing = {
    id: 3,
    path: [1, 3],
    organization: { id: 1, name: 'top' },
    effective: { state: 'active', from: { kind: 'organization', id: 3, name: 'own' } },
    email: null,
    grants: [{ role: 'A', scope: 'all' }],
  };
  expect(detailLines(thing)).toEqual([
    'id               3',
    'path             1, 3',
    'organization     top (1)',
    'effective.state  active',
    'effective.from   own (3)',
    'email            -',
    'grants.1.role    A',
    'grants.1.scope   all',
  ]);
  expect(detailLines('word')).toEqual(['word']);
});

test('values in words', () => {
  expect(valueInWords('storedBytes', 1536)).toBe('1.5 KiB');
  expect(valueInWords('bytes', -1)).toBe('-1');
  expect(valueInWords('guid', '12345678901234567890')).toBe('12345678901234567890');
  expect(valueInWords('roles', [{ role: 'A' }, { role: 'B' }])).toBe('A, B');
  expect(valueInWords('x', { a: 1, storedBytes: 2048, none: null, why: 'no\u001b[2J' })).toBe(
    'a: 1, storedBytes: 2.0 KiB, why: no\\x1b[2J',
  );
  expect(valueInWords('x', {})).toBe('-');
});

describe('the last run of a device', () => {
  const run = { run: 7, startedAt: '2026-03-01T10:20:30.000Z', lastHeardAt: '2026-03-01T10:25:00.000Z' };
  const counts = { files: 12, bytes: 4_096 };
  test.each<[what: string, run: object, shown: RegExp]>([
    [
      'that ended',
      { finishedAt: '2026-03-01T10:40:30.000Z', outcome: 'completed', reason: '' },
      /^completed 2026-03-01 \d\d:40:30$/,
    ],
    [
      'that failed',
      { finishedAt: '2026-03-01T10:40:30.000Z', outcome: 'failed', reason: 'disk\nfull' },
      /^failed 2026-03-01 \d\d:40:30 \(disk\\x0afull\)$/,
    ],
    ['that goes on', { finishedAt: null, outcome: null, reason: '' }, /^under way since 2026-03-01 \d\d:20:30$/],
  ])('%s is words in a table', (_what, ending, shown) => {
    const { lines } = tableLines([{ guid: '5', lastRun: { ...run, ...ending, counts } }], {}, null);
    expect(lines[1]!.replace(/^5 +/, '')).toMatch(shown);
  });
});

describe('text of others', () => {
  test.each([
    ['a\u001b[2Jb', 'a\\x1b[2Jb'],
    ['a\nb\tc', 'a\\x0ab\\x09c'],
    ['\u009b31m', '\\x9b31m'],
    ['\u202egnp.exe', '\\u{202e}gnp.exe'],
    ['\u200b', '\\u{200b}'],
    ['\u2028', '\\u{2028}'],
    ['\ud800x', '\\u{d800}x'],
    ['Zoë 名 👩', 'Zoë 名 👩'],
  ])('%j does nothing to a terminal', (text, shown) => expect(printable(text)).toBe(shown));

  test('is the same text in JSON, which does nothing either', () => {
    const value = { name: '\u001b[2J\u009b\u202e\u{e0001}\u007f\n' };
    for (const indent of [0, 2]) {
      const text = printableJson(value, indent);
      expect(JSON.parse(text)).toEqual(value);
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
      expect(text.replaceAll('\n', '')).toMatch(/^[^\u0000-\u001f\u007f-\u009f\u202e\u{e0001}]*$/u);
    }
  });

  test('is cut by the columns it takes', () => {
    expect(cut('abcdef', 6)).toBe('abcdef');
    expect(cut('abcdefg', 6)).toBe('abcde…');
    expect(cut('名名名', 5)).toBe('名名…');
    expect(cut('名名名', 4)).toBe('名…');
  });
});

describe('before what cannot be undone', () => {
  const asked = (answer: string) => {
    const questions: string[] = [];
    const done = confirm({ says: 'Delete an organization: a\u001bb (3)', name: 'a\u001bb ' }, async (question) => {
      questions.push(question);
      return answer;
    });
    return { done, questions };
  };

  test('the name has to be typed, as it is shown', async () => {
    const { done, questions } = asked('a\\x1bb');
    await expect(done).resolves.toBeUndefined();
    expect(questions).toEqual(['Delete an organization: a\\x1bb (3)\nType a\\x1bb  to go on: ']);
  });

  test.each(['', 'yes', 'a', 'A\\x1bb'])('%j is another', async (answer) => {
    await expect(asked(answer).done).rejects.toThrow(UsageError);
  });
});
