/** The options of the benchmarks: those that all of them have, and how one reads its own. */
import { tmpdir } from 'node:os';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';

export interface BenchmarkOptions {
  /** The folder in which the scratch folder is made. */
  data: string;
  quick: boolean;
  json: boolean;
}

/**
 * Reads the command line. At --help it prints the usage and ends the process.
 * @param own options beside those of all benchmarks; each takes a value
 * @throws Error in words for an option that is not known
 */
export function readBenchmarkOptions<Own extends string = never>(
  usage: string,
  own: readonly Own[] = [],
): { options: BenchmarkOptions; given: Partial<Record<Own, string>> } {
  const { values } = parseArgs({
    options: {
      ...Object.fromEntries(own.map((name) => [name, { type: 'string' as const }])),
      data: { type: 'string' },
      quick: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) {
    console.log(usage);
    process.exit(0);
  }
  const { data, quick, json } = values;
  return {
    options: { data: resolve(data ?? tmpdir()), quick, json },
    given: values as Partial<Record<Own, string>>,
  };
}

/** @throws RangeError */
export function readRounds(given: string | undefined, byDefault: number): number {
  const rounds = Number(given ?? byDefault);
  if (!Number.isInteger(rounds) || rounds < 1 || rounds > 10) throw new RangeError('--rounds is a number from 1 to 10');
  return rounds;
}
