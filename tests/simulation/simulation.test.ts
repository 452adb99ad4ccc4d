/** A few seeds of the simulation, short ones. The long run is `npm run test:simulation`; what it shows is in run.ts. */
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { type TestDatabase, testDatabase } from '../helpers/postgres.ts';
import { addReports, type CoverageReport } from './coverage.ts';
import { Lane } from './lane.ts';
import { runSeed } from './seed.ts';

let database: TestDatabase;
let lane: Lane;
const reports: CoverageReport[] = [];

beforeAll(async () => {
  database = await testDatabase({ migrated: false });
  lane = new Lane(database.connectionString);
});

afterAll(async () => {
  await lane.close();
  await database.drop();
});

test.each([1, 2])(
  'whatever goes wrong, nothing acknowledged is lost and nothing is left behind (seed %i)',
  async (seed) => {
    const result = await runSeed(lane, seed, { operations: 150, faults: 50 });
    reports.push(result.coverage);
    expect([result.failure, ...(result.failure === null ? [] : result.trace.slice(-40))]).toEqual([null]);
    expect(result.operations).toBeGreaterThanOrEqual(150);
    expect(result.faults).toBeGreaterThanOrEqual(50);
    expect(result.versionsRead).toBeGreaterThan(0);
  },
  120_000,
);

test('in those seeds backups went on while something was deleted', () => {
  const { effects, met } = addReports(reports);
  for (const effect of ['commit', 'later version', 'upload', 'versions deleted'])
    expect([effect, (effects[effect] ?? 0) > 0]).toEqual([effect, true]);
  for (const meeting of ['commit | prune', 'commit | reclaim', 'upload | prune', 'upload | reclaim'])
    expect([meeting, (met[meeting] ?? 0) > 0]).toEqual([meeting, true]);
});
