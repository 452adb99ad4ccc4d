/** `npm run test:fuzz`: 100,000 made-up bodies (HOLDFAST_FUZZ_CASES, HOLDFAST_FUZZ_SEED), and memory that stays flat. */
import { expect, test } from '@jest/globals';
import { fuzz } from './fuzz.ts';
import { ApiWorld } from './world.ts';

const cases = Number(process.env.HOLDFAST_FUZZ_CASES ?? 100_000);
const seed = Number(process.env.HOLDFAST_FUZZ_SEED ?? 1);
const MiB = 1024 * 1024;

test(`${cases} bodies`, async () => {
  const world = await ApiWorld.open();
  try {
    const onProgress = (done: number): void => void process.stderr.write(`\r${done} of ${cases}`);
    const { faults, statuses, inUse } = await fuzz(world, { cases, seed, onProgress });
    const [early, end] = [inUse.early, inUse.end].map((bytes) => Math.round(bytes / MiB));
    console.log(`${JSON.stringify(statuses)}; ${early} MiB in use when a fifth was done, ${end} MiB at the end`);
    expect(faults.slice(0, 20)).toEqual([]);
    expect(inUse.end - inUse.early).toBeLessThan(32 * MiB);
  } finally {
    await world.close();
  }
}, 3_600_000);
