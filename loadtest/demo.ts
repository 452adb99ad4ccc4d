/**
 * `npm run demo`: a tour of Holdfast in one command. A server on a scratch folder, two backups of real files with
 * changes between them, both moments restored and compared byte for byte. Everything is removed and stopped at the end,
 * also after Ctrl-C; the exit code is 1 if a single byte, mode or link differs.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { lstat, mkdir, readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { bytesInWords, countInWords, durationInWords } from '../agent/commands/words.ts';
import { type Program, startProgram } from './child-process.ts';
import { type Comparison, compareTrees, copyTree, noBounds } from './compare-trees.ts';
import { changeFiles, makeFiles } from './demo-files.ts';
import { type ServerProcess, startServer } from './server-process.ts';

const agentMain = fileURLToPath(new URL('../agent/main.ts', import.meta.url));
/** The whole tour takes a minute on two slow processors; ten times that is no tour any more. */
const tourTimeoutMs = 600_000;

type Counts = Record<string, number>;

interface BackupStep {
  elapsedMs: number;
  filesSeen: number;
  filesChanged: number;
  filesDeleted: number;
  bytesSeen: number;
  bytesRead: number;
  bytesSent: number;
  /** Bytes on the server's disk afterwards, all objects together. */
  bytesStored: number;
}

interface RestoreStep extends Comparison {
  elapsedMs: number;
  bytesRestored: number;
}

interface Tour {
  identical: boolean;
  serverStartedInMs: number;
  backups: BackupStep[];
  restores: RestoreStep[];
  elapsedMs: number;
}

interface Stage {
  scratch: string;
  say: (line: string) => void;
  onStart: (program: Program) => void;
}

async function tour({ scratch, say, onStart }: Stage): Promise<Tour> {
  const startedAt = performance.now();
  const files = join(scratch, 'files');
  const copies = join(scratch, 'copies');
  say('\n1  A server of its own: database, object store and certificate in one scratch folder   (npm start)');
  const server = await startServer({ data: join(scratch, 'server'), onStart });
  say(`   ready after ${durationInWords(server.startedInMs)} on ${server.url}`);

  say('\n2  Some files: the sources of this project and of packages it uses, and a few made for the purpose');
  await makeFiles(files);
  await copyTree(files, join(copies, 'first'), noBounds());

  say('\n3  The first backup   (npm run agent -- backup FILES)');
  const agent = (words: string[]): Promise<Counts> => runAgent(server, words, onStart);
  const first = await backUp(agent, server, files, say);
  const firstMoment = await momentNow();

  say('\n4  A day passes');
  for (const change of await changeFiles(files)) say(`   ${change}`);
  await copyTree(files, join(copies, 'second'), noBounds());

  say('\n5  The second backup: what changed is sent, and of large files only the blocks that changed');
  const second = await backUp(agent, server, files, say);
  const secondMoment = await momentNow();

  const restores: RestoreStep[] = [];
  for (const [index, [name, moment]] of (
    [
      ['first', firstMoment],
      ['second', secondMoment],
    ] as const
  ).entries()) {
    say(`\n${6 + index}  The ${name} moment comes back   (npm run agent -- restore FILES --to FOLDER --at ${moment})`);
    const to = join(scratch, 'restored', name);
    await mkdir(to, { recursive: true });
    const { elapsedMs = 0, bytesRestored = 0 } = await agent(['restore', files, '--to', to, '--at', moment]);
    const comparison = await compareTrees(join(copies, name), join(to, 'files'));
    restores.push({ ...comparison, elapsedMs, bytesRestored });
    say(`   ${bytesInWords(bytesRestored)} in ${durationInWords(elapsedMs)} (${rate(bytesRestored, elapsedMs)})`);
    sayComparison(comparison, say);
  }

  say('\n8  The server stops');
  await server.stop();
  const identical = restores.every((each) => each.differences === 0);
  return {
    identical,
    serverStartedInMs: Math.round(server.startedInMs),
    backups: [first, second],
    restores,
    elapsedMs: Math.round(performance.now() - startedAt),
  };
}

async function backUp(
  agent: (words: string[]) => Promise<Counts>,
  server: ServerProcess,
  files: string,
  say: (line: string) => void,
): Promise<BackupStep> {
  const before = await folderBytes(join(server.data, 'objects'));
  const counts = await agent(['backup', files]);
  const of = (name: string): number => counts[name] ?? 0;
  const step: BackupStep = {
    elapsedMs: of('elapsedMs'),
    filesSeen: of('filesSeen'),
    filesChanged: of('filesChanged'),
    filesDeleted: of('filesDeleted'),
    bytesSeen: of('bytesSeen'),
    bytesRead: of('bytesRead'),
    bytesSent: of('bytesSent'),
    bytesStored: await folderBytes(join(server.data, 'objects')),
  };
  if (of('filesSkipped') > 0) throw new Error(`the backup skipped ${of('filesSkipped')} files`);
  const n = countInWords;
  const [bytes, known] = [bytesInWords(step.bytesSeen), bytesInWords(of('bytesKnown'))];
  say(
    `   ${n(step.filesSeen)} files and links, ${bytes}; ${n(step.filesChanged)} new or changed, ${n(step.filesDeleted)} gone`,
  );
  say(
    `   ${bytesInWords(step.bytesRead)} read in ${durationInWords(step.elapsedMs)} (${rate(step.bytesRead, step.elapsedMs)}); of that`,
  );
  say(`     ${known.padStart(9)} deduplicated: the vault had these blocks`);
  say(`     ${bytesInWords(step.bytesSent).padStart(9)} sent, compressed and encrypted before it left the agent`);
  say(
    `     ${bytesInWords(step.bytesStored - before).padStart(9)} more on the server's disk, ${bytesInWords(step.bytesStored)} in all`,
  );
  return step;
}

function sayComparison(comparison: Comparison, say: (line: string) => void): void {
  const { files, folders, symlinks, bytes, differences, examples } = comparison;
  const n = countInWords;
  say(
    `   compared: ${n(files)} files byte for byte (${bytesInWords(bytes)}), ${n(folders)} folders, ${n(symlinks)} symlinks, all modes`,
  );
  say(differences === 0 ? '   identical' : `   ${n(differences)} DIFFERENCES`);
  for (const example of examples) say(`     ${example}`);
}

function rate(bytes: number, elapsedMs: number): string {
  return `${bytesInWords((bytes * 1000) / Math.max(1, elapsedMs))}/s`;
}

/** A moment after everything so far and before everything to come, on the clock that the server's database has too. */
async function momentNow(): Promise<string> {
  await sleep(50);
  const moment = new Date().toISOString();
  await sleep(50);
  return moment;
}

/** Runs the agent's command as people do, and gives the numbers it ends with. @throws Error with what it said */
async function runAgent(server: ServerProcess, words: string[], onStart: Stage['onStart']): Promise<Counts> {
  let end: Counts | null = null;
  const program = startProgram(agentMain, [...words, '--json'], {
    environment: { HOLDFAST_DATA: server.data },
    onLine: (line) => {
      const event = JSON.parse(line) as Counts & { event: string };
      if (event.event === 'end') end = event;
    },
  });
  onStart(program);
  const code = await program.ended;
  if (code !== 0 || !end)
    throw new Error(`${words[0]} ended with ${code}: ${program.output().slice(-2_000)}${program.errors()}`);
  return end;
}

async function folderBytes(folder: string): Promise<number> {
  let bytes = 0;
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) bytes += (await lstat(join(entry.parentPath, entry.name))).size;
  }
  return bytes;
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: { json: { type: 'boolean', default: false }, help: { type: 'boolean', short: 'h' } },
  });
  if (values.help) {
    console.log(
      'usage: npm run demo -- [--json]\nA tour in about a minute, on a scratch folder that is removed again.',
    );
    return 0;
  }
  const say = (line: string): void => {
    if (!values.json) console.log(line);
  };
  const scratch = mkdtempSync(join(tmpdir(), 'holdfast-demo-'));
  const programs: Program[] = [];
  const interrupted = Promise.withResolvers<never>();
  let signalled = false;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      if (!signalled && !values.json) console.log('\nStopping and cleaning up.');
      signalled = true;
      interrupted.reject(new Error('interrupted'));
    });
  }
  const late = setTimeout(() => interrupted.reject(new Error('the tour took too long')), tourTimeoutMs).unref();
  try {
    const result = await Promise.race([
      tour({ scratch, say, onStart: (program) => void programs.push(program) }),
      interrupted.promise,
    ]);
    say(result.identical ? '\nBoth moments came back exactly as they were.' : '\nSOMETHING CAME BACK DIFFERENT.');
    if (values.json) console.log(JSON.stringify(result, null, 2));
    return result.identical ? 0 : 1;
  } catch (error) {
    if (signalled) return 130;
    console.error(`The demo failed: ${(error as Error).message}`);
    return 1;
  } finally {
    clearTimeout(late);
    // Newest first: an agent at work ends before its server does.
    for (const program of programs.reverse()) await program.stop(75_000);
    rmSync(scratch, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
    say(`Everything is stopped, and ${scratch} is removed.\n`);
  }
}

process.exitCode = await main();
process.exit();
