/** The agent over a link that takes its time: whether one connection fills it, and what it comes to of what the link carries. */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { agentRestore, type Stage, settle } from './restoring-world.ts';
import type { ServerProcess } from './server-process.ts';
import { startSlowLink } from './slow-link.ts';
import { inDigits, renderTable, type Summary, summarize } from './statistics.ts';

/** 1 Gbit/s. */
const bytesPerSecond = 125e6;

export interface LinkReport {
  roundTripMs: number;
  bytesPerSecond: number;
  rows: { name: string; megabytesPerSecond: Summary; filesPerSecond: number }[];
}

interface Shape {
  name: string;
  path: string;
  bytes: number;
  files: number;
}

/** The agent's registration names the server's address: for the while it names the link's. */
export async function runLink(
  stage: Stage,
  server: ServerProcess,
  shapes: readonly Shape[],
  { linkMs, rounds, memory }: { linkMs: number; rounds: number; memory: string },
): Promise<LinkReport> {
  const link = await startSlowLink(Number(new URL(server.url).port), { roundTripMs: linkMs, bytesPerSecond });
  const file = join(server.data, 'agent', 'registration.json');
  const before = readFileSync(file);
  const to = join(memory, `holdfast-restoring-link-${process.pid}`);
  try {
    const registration = JSON.parse(before.toString()) as { url: string };
    writeFileSync(file, JSON.stringify({ ...registration, url: `https://127.0.0.1:${link.port}` }), { mode: 0o600 });
    const rows: LinkReport['rows'] = [];
    for (const { name, path, bytes, files } of shapes) {
      const rates: number[] = [];
      for (let round = 1; round <= rounds; round++) {
        stage.say(`${name}, a round trip of ${linkMs} ms: round ${round} of ${rounds}`);
        const { elapsedMs } = await agentRestore(stage, server, { path, to, bytes });
        rates.push(bytes / 1e3 / elapsedMs);
        await settle();
      }
      const megabytesPerSecond = summarize(rates);
      rows.push({ name, megabytesPerSecond, filesPerSecond: (files * megabytesPerSecond.median * 1e6) / bytes });
    }
    return { roundTripMs: linkMs, bytesPerSecond, rows };
  } finally {
    writeFileSync(file, before, { mode: 0o600 });
    rmSync(to, { recursive: true, force: true });
    await link.close();
  }
}

export function renderLink({ roundTripMs, bytesPerSecond: rate, rows }: LinkReport): string {
  return `The agent, to memory, over a link of ${inDigits((rate * 8) / 1e9)} Gbit/s with a round trip of ${roundTripMs} ms\n${renderTable(
    ['', 'MB/s', '', 'of the link', 'files/s'],
    rows.map(({ name, megabytesPerSecond: { median, min, max }, filesPerSecond }) => [
      name,
      inDigits(median),
      `(${inDigits(min)} to ${inDigits(max)})`,
      `${inDigits((median * 1e8) / rate)} %`,
      inDigits(filesPerSecond),
    ]),
  )}`;
}
