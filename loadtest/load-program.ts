/** What the load tests have in common as programs: options, a scratch folder, an end in order, an exit code. */
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Program } from './child-process.ts';

/**
 * What Node is told for a server, as the container image and package.json tell it: V8's young generation is otherwise
 * made for the machine and its old one collected late, and a server's memory is then mostly what was not collected yet.
 */
export const serverNodeArguments = ['--max-semi-space-size=8', '--heap-growing-percent=30'];

export interface LoadTest<Options, Report> {
  /** The scratch folder's name begins with it. */
  name: string;
  usage: string;
  /** @throws Error in words, when the options are not understood */
  readOptions(): Options;
  run(options: Options, scratch: string, onStart: (program: Program) => void): Promise<Report>;
  render(report: Report): string;
}

/** Runs it and ends the process: 0 done, 1 failed, 2 wrong usage, 130 stopped by a signal. Whatever was started is stopped. */
export async function runLoadTest<Options extends { data: string; json: boolean }, Report>(
  test: LoadTest<Options, Report>,
): Promise<never> {
  process.exitCode = await end(test);
  process.exit();
}

async function end<Options extends { data: string; json: boolean }, Report>(
  test: LoadTest<Options, Report>,
): Promise<number> {
  if (process.platform !== 'linux') {
    console.error('This load test reads processor time from /proc, which only Linux has.');
    return 2;
  }
  let options: Options;
  try {
    options = test.readOptions();
  } catch (error) {
    console.error(`${(error as Error).message}\n\n${test.usage}`);
    return 2;
  }
  const scratch = mkdtempSync(join(options.data, test.name));
  const programs: Program[] = [];
  const interrupted = Promise.withResolvers<never>();
  let signalled = false;
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => {
      signalled = true;
      interrupted.reject(new Error(`stopped by ${signal}`));
    });
  try {
    const work = test.run(options, scratch, (program) => void programs.push(program));
    const report = await Promise.race([work, interrupted.promise]);
    console.log(options.json ? JSON.stringify(report, null, 2) : test.render(report));
    return 0;
  } catch (error) {
    console.error(`The load test failed: ${(error as Error).message}`);
    return signalled ? 130 : 1;
  } finally {
    // The last one first: those that ask a server end before it.
    for (const program of programs.reverse()) await program.stop(60_000);
    rmSync(scratch, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  }
}
