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
    const result = await runSeed(lane, seed, { operations: 200, faults: 50 });
    reports.push(result.coverage);
    expect([result.failure, ...(result.failure === null ? [] : result.trace.slice(-40))]).toEqual([null]);
    expect(result.operations).toBeGreaterThanOrEqual(200);
    expect(result.faults).toBeGreaterThanOrEqual(50);
    expect(result.versionsRead).toBeGreaterThan(0);
  },
  120_000,
);

test('backups and deleting overlapped in those seeds', () => {
  const { pairs } = addReports(reports);
  for (const pair of ['commit x prune', 'commit x reclaim', 'commit x upload', 'reclaim x upload'])
    expect(pairs[pair] ?? 0).toBeGreaterThan(0);
});
