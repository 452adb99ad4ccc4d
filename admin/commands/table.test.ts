import { describe, expect, test } from '@jest/globals';
import { UsageError } from '../errors.ts';
import { confirm } from './ask.ts';
import { cut, printable, printableJson, widthOf } from './printable.ts';
import { detailLines, tableLines } from './table.ts';
import { valueInWords } from './words.ts';

/** As tables show a moment of the server's: by the clock of this machine, whose zone may be half an hour off. */
function shown(moment: string): string {
  const date = new Date(moment);
  const two = (value: number): string => String(value).padStart(2, '0');
  const day = [date.getFullYear(), two(date.getMonth() + 1), two(date.getDate())].join('-');
  return `${day} ${[date.getHours(), date.getMinutes(), date.getSeconds()].map(two).join(':')}`;
}
const createdAt = '2026-03-01T10:20:30.000Z';

const page = { properties: { id: {}, name: {}, state: {}, organization: {}, createdAt: {}, version: {} } };
const row = (id: number, name: string) => ({
  id,
  name,
  state: 'active',
  organization: { id: 3, name: 'Sales' },
  createdAt,
  version: 1,
});

describe('a table', () => {
  test('has the columns of the schema, what everything has last, and is aligned', () => {
    const { lines, leftOut } = tableLines([row(1, 'anna'), row(12, 'bo')], page, null);
    expect(lines[0]).toMatch(/^id {2}name {2}state {3}organization {2}createdAt {12}version$/);
    expect(lines[1]).toBe(`1   anna  active  Sales (3)     ${shown(createdAt)}  1`);
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
      const isWhole = lines[1]!.includes(shown(createdAt));
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
  const startedAt = '2026-03-01T10:20:30.000Z';
  const finishedAt = '2026-03-01T10:40:30.000Z';
  const run = { run: 7, startedAt, lastHeardAt: '2026-03-01T10:25:00.000Z' };
  const counts = { files: 12, bytes: 4_096 };
  test.each<[what: string, run: object, inWords: string]>([
    ['that ended', { finishedAt, outcome: 'completed', reason: '' }, `completed ${shown(finishedAt)}`],
    [
      'that failed',
      { finishedAt, outcome: 'failed', reason: 'disk\nfull' },
      `failed ${shown(finishedAt)} (disk\\x0afull)`,
    ],
    ['that goes on', { finishedAt: null, outcome: null, reason: '' }, `under way since ${shown(startedAt)}`],
  ])('%s is words in a table', (_what, ending, inWords) => {
    const { lines } = tableLines([{ guid: '5', lastRun: { ...run, ...ending, counts } }], {}, null);
    expect(lines[1]!.replace(/^5 +/, '')).toBe(inWords);
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
