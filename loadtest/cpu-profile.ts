/** Where a process spent its processor time, from the profiles that Node's --cpu-prof writes: time by function itself. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { inDigits, renderTable } from './statistics.ts';

/** The parts of Chrome's .cpuprofile format that are used here. */
export interface CpuProfile {
  nodes: { id: number; callFrame: { functionName: string; url: string; lineNumber: number } }[];
  /** Node ids, one a sample, and the microseconds before each. */
  samples: number[];
  timeDeltas: number[];
}

export interface ProfileLine {
  /** Function and file, or Node's own name for what is no function: (garbage collector), (program). */
  name: string;
  ms: number;
  /** Of the time that was not idle, 0 to 1. */
  share: number;
}

const idle = '(idle)';

/** Functions by their own time, most first, idle time left out. */
export function ownTimes(profiles: readonly CpuProfile[]): ProfileLine[] {
  const msByName = new Map<string, number>();
  for (const { nodes, samples, timeDeltas } of profiles) {
    const names = new Map(nodes.map((node) => [node.id, nameOf(node.callFrame)]));
    for (const [index, id] of samples.entries()) {
      const name = names.get(id) ?? '(unknown)';
      // Clocks of processors differ a little: Node writes a negative step then.
      msByName.set(name, (msByName.get(name) ?? 0) + Math.max(0, timeDeltas[index] ?? 0) / 1000);
    }
  }
  msByName.delete(idle);
  const allMs = [...msByName.values()].reduce((sum, ms) => sum + ms, 0);
  return [...msByName].map(([name, ms]) => ({ name, ms, share: ms / allMs })).sort((a, b) => b.ms - a.ms);
}

function nameOf({ functionName, url, lineNumber }: CpuProfile['nodes'][number]['callFrame']): string {
  if (url === '') return functionName || '(anonymous)';
  // From the last folder that tells where it belongs: ours, a package's, or Node's own.
  const place = url.replace(/^.*\/node_modules\//, '').replace(/^file:\/\/.*?\/(?=(?:server|storage|protocol)\/)/, '');
  return `${functionName || '(anonymous)'} ${place}:${lineNumber + 1}`;
}

export function readProfiles(folder: string): CpuProfile[] {
  const files = readdirSync(folder).filter((name) => name.endsWith('.cpuprofile'));
  return files.map((name) => JSON.parse(readFileSync(join(folder, name), 'utf8')) as CpuProfile);
}

export function renderProfile(profiles: readonly CpuProfile[], linesMax = 40): string {
  const lines = ownTimes(profiles);
  const rows = lines
    .slice(0, linesMax)
    .map((line) => [line.name, inDigits(line.ms), `${inDigits(line.share * 100)} %`]);
  return `Where the main thread of the server's own process spent its time (start and stop included)\n${renderTable(['function', 'ms', 'of all'], rows)}`;
}
