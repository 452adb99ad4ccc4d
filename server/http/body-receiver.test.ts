import { Readable } from 'node:stream';
import { expect, test } from '@jest/globals';
import { BodyReceiver, roomFor } from './body-receiver.ts';
import { ByteBudget } from './budget.ts';
import { budgetDefaults } from './settings.ts';

const MiB = 1024 * 1024;

/** A budget that one other body fills up to so many bytes; what does not fit waits until `makeRoom` lets it go. */
async function fullBudget(freeBytes = 0) {
  const budget = new ByteBudget({ ...budgetDefaults, totalBytes: 2 * MiB, bodyBytesMax: 2 * MiB, waitMs: 10_000 });
  const other = await budget.open(2 * MiB, 0);
  expect(budget.tryCharge(other, 2 * MiB - freeBytes)).toBe(true);
  budget.received(other);
  return { budget, makeRoom: () => budget.close(other) };
}

async function receive(budget: ByteBudget, source: Readable, length: number) {
  const account = await budget.open(roomFor(length), 0);
  const body = new BodyReceiver(source, account, length);
  const whole = Array.fromAsync(body).then((chunks) => Buffer.concat(chunks));
  whole.catch(() => {});
  return { whole, close: () => budget.close(account) };
}

/** The chunks come with the end right behind them, as from a sender that is done. */
function sent(...chunks: Buffer[]): Readable {
  const source = new Readable({ read: () => {} });
  for (const chunk of [...chunks, null]) source.push(chunk);
  return source;
}

test.each([
  ['a small chunk', [Buffer.alloc(1_000, 'a')]],
  ['a chunk that needs segment after segment', [Buffer.alloc(300_000, 'a')]],
  ['several chunks', [Buffer.alloc(9_000, 'a'), Buffer.alloc(100, 'b'), Buffer.alloc(70_000, 'c')]],
])('a body whose end comes while %s waits for room arrives whole', async (_, chunks) => {
  const { budget, makeRoom } = await fullBudget();
  const expected = Buffer.concat(chunks);
  const source = sent(...chunks);
  const { whole, close } = await receive(budget, source, expected.byteLength);
  while (budget.waiters === 0) await new Promise((resolve) => setImmediate(resolve));
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve)); // for 'end' and 'close'
  expect(source.readableEnded).toBe(chunks.length === 1);
  makeRoom();
  expect((await whole).equals(expected)).toBe(true);
  close();
  expect(budget.heldBytes).toBe(0);
});

test('a body whose reader leaves while a chunk waits is not read on', async () => {
  const { budget, makeRoom } = await fullBudget(4_096);
  const source = new Readable({ read: () => {} });
  const account = await budget.open(roomFor(20_000), 0);
  const reading = new BodyReceiver(source, account, 20_000)[Symbol.asyncIterator]();
  const first = reading.next();
  source.push(Buffer.alloc(4_096));
  expect((await first).value?.byteLength).toBe(4_096);
  source.push(Buffer.alloc(4_096));
  while (budget.waiters === 0) await new Promise((resolve) => setImmediate(resolve));
  await reading.return();
  makeRoom();
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
  expect(source.isPaused()).toBe(true);
  budget.close(account);
  expect(budget.heldBytes).toBe(0);
});
