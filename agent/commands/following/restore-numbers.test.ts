import { expect, test } from '@jest/globals';
import type { ChannelFrame } from '../../../protocol/commands.ts';
import { RestoreNumbers } from './restore-numbers.ts';

const told = (id: number): ChannelFrame =>
  ({ type: 'command', command: { id, kind: 'restore', restore: id + 10_000 } }) as unknown as ChannelFrame;

test('of more than 1,000 the one that was told longest ago is forgotten, and not one that was told again', () => {
  const numbers = new RestoreNumbers();
  for (let id = 1; id <= 1_000; id++) numbers.hear(told(id));
  numbers.hear(told(1));
  numbers.hear(told(1_001));
  expect([1, 2, 3].map((id) => numbers.of(id))).toEqual([{ restore: 10_001 }, {}, { restore: 10_003 }]);
  expect([1, 2].map((id) => numbers.inWords(id))).toEqual(['restore 10001', 'restore of command 2']);
});
