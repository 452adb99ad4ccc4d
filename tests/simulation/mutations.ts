/**
 * Shows that the simulation would notice: takes each guard out of a copy of the code in turn, and runs the simulation
 * until it fails. `node tests/simulation/mutations.ts [--only NAME] [--seeds-max N] [--jobs 2]`. Fails if it stays green for any guard,
 * and if a guard's text is not found exactly once: then the tables in mutations/ have to follow the code.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { Guard } from './mutations/guard.ts';
import { guards } from './mutations/guards.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const copied = ['protocol', 'storage', 'server', 'agent', 'migrations', 'tests', 'package.json', 'tsconfig.json'];
const seedsDefault = 40;

const { values } = parseArgs({
  options: {
    only: { type: 'string' },
    jobs: { type: 'string', default: '2' },
    /** Fewer seeds than a guard's own number: for a first look. */
    'seeds-max': { type: 'string', default: '1000' },
    check: { type: 'boolean', default: false },
  },
});

interface Outcome {
  guard: Guard;
  caught: boolean;
  seeds: number;
  seconds: number;
  /** How it was caught, or what is wrong with the guard's text. */
  as: string;
}

const chosen = guards.filter((guard) => !values.only || guard.name.includes(values.only));
const scratch = mkdtempSync(join(tmpdir(), 'holdfast-mutations-'));
const outcomes: Outcome[] = [];
let running: ChildProcess | null = null;
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => {
    running?.kill();
    rmSync(scratch, { recursive: true, force: true });
    process.exit(1);
  });
try {
  for (const entry of copied) cpSync(join(root, entry), join(scratch, entry), { recursive: true });
  symlinkSync(join(root, 'node_modules'), join(scratch, 'node_modules'));
  for (const guard of chosen) {
    const outcome = await tryWithout(guard);
    outcomes.push(outcome);
    console.log(line(outcome));
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
const missed = outcomes.filter((outcome) => !outcome.caught);
console.log(`${outcomes.length} guards, ${missed.length} not missed by the simulation when they are gone`);
for (const { guard } of missed) console.log(`  ${guard.name}: ${guard.why}`);
process.exitCode = missed.length > 0 ? 1 : 0;

async function tryWithout(guard: Guard): Promise<Outcome> {
  // One after the other: several edits of a guard may be of one file.
  const texts = new Map<string, { before: string; after: string }>();
  const edits = guard.edits.map(({ file, find, replace }) => {
    const path = join(scratch, file);
    const text = texts.get(path) ?? { before: readFileSync(path, 'utf8'), after: readFileSync(path, 'utf8') };
    const found = text.after.split(find).length - 1;
    texts.set(path, { ...text, after: text.after.replace(find, () => replace) });
    return { found, file };
  });
  const wrong = edits.find((edit) => edit.found !== 1);
  if (wrong)
    return { guard, caught: false, seeds: 0, seconds: 0, as: `its text is ${wrong.found} times in ${wrong.file}` };
  if (values.check) return { guard, caught: true, seeds: 0, seconds: 0, as: 'only looked for its text' };
  for (const [path, { after }] of texts) writeFileSync(path, after);
  const begun = performance.now();
  const { code, output } = await simulate(Math.min(guard.seeds ?? seedsDefault, Number(values['seeds-max'])));
  for (const [path, { before }] of texts) writeFileSync(path, before);
  const seconds = (performance.now() - begun) / 1000;
  const seeds = Number(/^(\d+) seeds, \d+ failed/m.exec(output)?.[1] ?? 0);
  const as = /FAILED after \d+ steps:\n(.*)/.exec(output)?.[1] ?? (code === 0 ? '' : output.slice(-300));
  return { guard, caught: code !== 0 && seeds > 0, seeds, seconds, as };
}

function simulate(seeds: number): Promise<{ code: number | null; output: string }> {
  const args = [
    '--disable-warning=ExperimentalWarning',
    'tests/simulation/run.ts',
    '--seeds',
    `${seeds}`,
    '--jobs',
    values.jobs,
  ];
  const child = spawn(process.execPath, args, { cwd: scratch, stdio: ['ignore', 'pipe', 'pipe'] });
  running = child;
  let output = '';
  const keep = (bytes: Buffer): void => {
    output += bytes.toString();
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  return new Promise((resolve) => child.once('close', (code) => resolve({ code, output })));
}

function line({ guard, caught, seeds, seconds, as }: Outcome): string {
  return `${caught ? 'caught' : 'MISSED'}  ${guard.name.padEnd(44)} ${`${seeds}`.padStart(3)} seeds ${seconds.toFixed(0).padStart(4)} s  ${as.slice(0, 160)}`;
}
