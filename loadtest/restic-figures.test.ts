import { expect, test } from '@jest/globals';
import { type ResticReport, renderResticReport, type Turn, Turns } from './restic-figures.ts';

const GiB = 1024 ** 3;
const turn = (seconds: number, more: Partial<Turn> = {}): Turn => ({
  seconds,
  syncSeconds: 0.5,
  serverCpuSeconds: 0,
  postgresCpuSeconds: 0,
  clientCpuSeconds: 3,
  retries: 1,
  ...more,
});

function threeRounds(): Turns {
  const turns = new Turns(GiB / 2);
  for (const [ours, theirs] of [
    [10, 5],
    [30, 20],
    [12, 4],
  ] as const) {
    turns.add('backup', 'rclone', turn(theirs, { serverCpuSeconds: 1 }));
    turns.add('backup', 'Holdfast', turn(ours, { serverCpuSeconds: 4, postgresCpuSeconds: 0.5 }));
  }
  return turns;
}

test('a side stands beside another by the median of the rounds’ ratios, not by the ratio of the medians', () => {
  const rows = threeRounds().rows();
  const ours = rows.find(({ side }) => side === 'Holdfast')!;
  expect(ours.seconds).toEqual({ median: 12, min: 10, max: 30 });
  expect(ours.by).toEqual({ rclone: 2 }); // of 2, 1.5 and 3; the medians are 12 and 5
  expect(rows.find(({ side }) => side === 'rclone')!.by).toEqual({ Holdfast: 0.5 });
});

test('processor time is told by GiB of the tree', () => {
  const ours = threeRounds()
    .rows()
    .find(({ side }) => side === 'Holdfast')!;
  expect([ours.serverCpuPerGiB.median, ours.postgresCpuPerGiB.median, ours.clientCpuPerGiB.median]).toEqual([8, 1, 6]);
  expect(ours.retries).toBe(3);
});

test('a round that one side has and another has not is an error, not a ratio', () => {
  const turns = threeRounds();
  turns.add('backup', 'Holdfast', turn(1));
  expect(() => turns.rows()).toThrow(RangeError);
});

test('what is measured is the work without the sync after it', async () => {
  const order: string[] = [];
  const measured = await Turns.measure(
    null,
    async () => order.push('work') + 6,
    async () => void order.push('sync'),
  );
  expect(order).toEqual(['work', 'sync']);
  expect([measured.serverCpuSeconds, measured.retries]).toEqual([0, 7]);
});

test('the table has the commands in their order, ours first, and warns of figures that are none', () => {
  const turns = threeRounds();
  turns.add('init', 'rclone', turn(1));
  turns.add('init', 'Holdfast', turn(1));
  const report: ResticReport = {
    at: '2026-11-22T00:00:00Z',
    node: '24',
    processors: 2,
    loadBefore: 1,
    loadAfter: 2,
    rounds: 3,
    quick: true,
    profiled: false,
    bytes: GiB / 2,
    files: 3,
    rows: turns.rows(),
  };
  const text = renderResticReport(report);
  expect(text.match(/^(init|backup), \w+/gm)).toEqual([
    'init, Holdfast',
    'init, rclone',
    'backup, Holdfast',
    'backup, rclone',
  ]);
  expect(text).toContain('QUICK');
  expect(text).not.toContain('PROFILED');
});
