/**
 * `node loadtest/browsing.ts`: what it takes to look around in an archive of a million files, and in a folder of a million;
 * each beside a plain SELECT in the same run. Everything written is removed. docs/performance.md says how to read it.
 */
import { availableParallelism, loadavg } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type BenchmarkOptions, readBenchmarkOptions } from './benchmark-options.ts';
import type { BrowsingFigures } from './browsing-figures.ts';
import { type Program, startProgram } from './child-process.ts';
import { runLoadTest } from './load-program.ts';
import { inDigits, renderTable } from './statistics.ts';

const postgresMain = fileURLToPath(new URL('./garbage-postgres.child.ts', import.meta.url));
const browsingMain = fileURLToPath(new URL('./browsing.child.ts', import.meta.url));

const usage = `usage: node loadtest/browsing.ts [options]
  --data FOLDER   where the scratch folder lies, on the disk to be measured (default: the system's for temporary files)
  --quick         a fiftieth of the size: whether it works, not what it takes
  --json          one JSON object instead of tables`;

interface Report extends BrowsingFigures {
  at: string;
  node: string;
  processors: number;
  load: { before: number; after: number };
  quick: boolean;
}

async function run(options: BenchmarkOptions, scratch: string, onStart: (program: Program) => void): Promise<Report> {
  const [before = 0] = loadavg();
  const postgres = startProgram(postgresMain, [join(scratch, 'postgres'), 'browsing'], { endsByItself: true });
  onStart(postgres);
  const [said] = await postgres.says(/^\{.*\}$/m, 180_000);
  const { urls } = JSON.parse(said) as { urls: Record<string, string> };
  const program = startProgram(browsingMain, [urls.browsing!, options.quick ? '20000' : '1000000']);
  onStart(program);
  const [figures] = await program.says(/^\{.*\}$/m, 1_200_000);
  const [after = 0] = loadavg();
  return {
    ...(JSON.parse(figures) as BrowsingFigures),
    at: new Date().toISOString(),
    node: process.versions.node,
    processors: availableParallelism(),
    load: { before, after },
    quick: options.quick,
  };
}

function render(report: Report): string {
  const { files, pages, searches } = report;
  const by = (ms: number, plainMs: number): string => `${inDigits(ms / plainMs)} x`;
  return `
Archives of ${files} files. ${report.processors} processors, Node ${report.node}, load average ${inDigits(report.load.before)} before and ${inDigits(report.load.after)} after.${report.quick ? '\nQUICK: too little for figures; it shows that everything works.' : ''}

${renderTable(
  ['first page', 'ms', '99 % within', 'plain SELECT, ms', 'by that'],
  Object.entries(pages).map(([what, { ms, p99Ms, plainMs }]) => [
    what,
    inDigits(ms),
    inDigits(p99Ms),
    inDigits(plainMs),
    by(ms, plainMs),
  ]),
)}

${renderTable(
  ['search', 'hits', 'first hit, ms', 'all, ms', 'by one SELECT', 'longest step, ms'],
  searches.map(({ what, hits, firstMs, ms, plainMs, longestStepMs }) => [
    what,
    String(hits),
    firstMs === null ? '-' : inDigits(firstMs),
    inDigits(ms),
    by(ms, plainMs),
    inDigits(longestStepMs),
  ]),
)}
`;
}

await runLoadTest({
  name: 'holdfast-browsing-',
  usage,
  readOptions: () => readBenchmarkOptions(usage).options,
  run,
  render,
});
