import { expect, test } from '@jest/globals';
import { addedUsage, noUsage, rollUp, toUsage, type Usage } from './usage-report.ts';

const usage = (n: number): Usage => ({ logicalBytes: n, storedBytes: 10 * n, reclaimableBytes: 2 * n, versions: 1 });
const node = (id: number, parentId: number | null, n: number) => ({ id, parentId, own: usage(n) });
const totals = (nodes: ReturnType<typeof node>[]) =>
  Object.fromEntries(rollUp(nodes).map(({ id, total }) => [id, [total.logicalBytes, total.versions]]));

test('a node holds itself and everything below it, whatever the order', () => {
  const tree = [node(1, null, 1), node(2, 1, 10), node(3, 1, 100), node(4, 2, 1_000), node(5, 4, 10_000)];
  const expected = { 1: [11_111, 5], 2: [11_010, 3], 3: [100, 1], 4: [11_000, 2], 5: [10_000, 1] };
  expect(totals(tree)).toEqual(expected);
  expect(totals([...tree].reverse())).toEqual(expected);
  expect(totals([tree[3]!, tree[0]!, tree[4]!, tree[2]!, tree[1]!])).toEqual(expected);
});

test('several roots, a parent that is not there, and nothing at all', () => {
  expect(totals([node(1, null, 1), node(2, null, 2), node(3, 99, 4), node(4, 3, 8)])).toEqual({
    1: [1, 1],
    2: [2, 1],
    3: [12, 2],
    4: [8, 1],
  });
  expect(rollUp([])).toEqual([]);
});

test('a chain of 50,000 is no recursion', () => {
  const chain = Array.from({ length: 50_000 }, (_, i) => node(i + 1, i === 0 ? null : i, 1));
  expect(rollUp(chain)[0]!.total.versions).toBe(50_000);
});

test('what is stored and what of it comes back', () => {
  const vault = { logicalBytes: 500, storedBytes: 90, referencedBytes: 60, objectBytes: 100, versions: 3 };
  const expected = { logicalBytes: 500, storedBytes: 100, reclaimableBytes: 40, versions: 3 };
  expect(toUsage(vault)).toEqual(expected);
  expect(addedUsage(noUsage, toUsage(vault))).toEqual(expected);
});
