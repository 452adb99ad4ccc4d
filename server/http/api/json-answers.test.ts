import { expect, test } from '@jest/globals';
import { joinedLines, sendNow } from './json-answers.ts';

async function pieces(lines: readonly (object | string)[]): Promise<string[]> {
  const source = async function* () {
    yield* lines;
  };
  return (await Array.fromAsync(joinedLines(source()))).map(String);
}

test('lines are joined until there is enough to send, or somebody waits for them', async () => {
  expect(await pieces([{ a: 1 }, 'b\n', { c: 2 }])).toEqual(['{"a":1}\nb\n{"c":2}\n']);
  expect(await pieces([{ a: 1 }, sendNow, sendNow, { c: 2 }, sendNow])).toEqual(['{"a":1}\n', '{"c":2}\n']);
  const long = 'x'.repeat(32 * 1024);
  expect(await pieces([long.slice(1), 'y', 'z'])).toEqual([`${long.slice(1)}y`, 'z']);
  expect(await pieces([sendNow])).toEqual([]);
});
