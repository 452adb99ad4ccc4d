/**
 * Plans from end to end: the real server and the real agent, as processes. An administrator makes a plan through the API, the
 * agent follows it without a path on its command line, and what the plan leaves out later stays in the archive.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { type AgentEvent, TestAgent } from './helpers/agent.ts';
import { type RunningServer, startServer } from './helpers/server.ts';

let server: RunningServer;
let scratch: string;
let agent: TestAgent;
let token: string;

beforeAll(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'holdfast-plans-'));
  server = await startServer();
  agent = new TestAgent({ localServer: server.data });
  const { registrationKey, userName, password } = server.firstStart;
  const signedIn = await ask('POST', '/v1/sessions', { tenant: registrationKey, userName, password });
  token = String(signedIn.accessToken);
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(join(agent.home, name, '..'), { recursive: true });
    writeFileSync(join(agent.home, name), text);
  }
}, 120_000);
afterAll(async () => {
  agent?.remove();
  await server?.stop();
  rmSync(scratch, { recursive: true, force: true });
});

const files = {
  'Documents/letter.txt': 'dear',
  'Documents/film.iso': 'large',
  'Documents/old/note.txt': 'old',
  'elsewhere/secret': 'not in the plan',
};

/** One call of the JSON API, as the first administrator. @throws Error with the answer when it is not 2xx */
function ask(method: string, path: string, body?: object): Promise<Record<string, unknown>> {
  const headers = { 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}` }) };
  return new Promise((resolve, reject) => {
    const asked = request(`${server.url}${path}`, { method, headers, rejectUnauthorized: false }, (answer) => {
      let text = '';
      answer.setEncoding('utf8');
      answer.on('data', (part) => {
        text += part;
      });
      answer.on('end', () => {
        if (answer.statusCode! < 300) resolve(JSON.parse(text) as Record<string, unknown>);
        else reject(new Error(`${method} ${path}: ${answer.statusCode} ${text}`));
      });
    });
    asked.on('error', reject);
    asked.end(body && JSON.stringify(body));
  });
}

const eventsOf = (events: AgentEvent[], event: string): AgentEvent[] => events.filter((each) => each.event === event);

test('a plan is made, followed, narrowed, and what it leaves out then is still there', async () => {
  const me = (await ask('GET', '/v1/me')) as { organization: { id: number } | number };
  const organization = typeof me.organization === 'number' ? me.organization : me.organization.id;
  const content = { include: ['~/Documents', '~/Videos'], exclude: [], everyMinutes: 60, windows: [] };
  const plan = (await ask('POST', '/v1/plans', { organization, name: 'Papers', ...content })) as { id: number };

  const first = await agent.run('backup');
  expect(first).toMatchObject({ exitCode: 0 });
  expect(eventsOf(first.events, 'start')).toMatchObject([{ plan: 'Papers', roots: [join(agent.home, 'Documents')] }]);
  expect(eventsOf(first.events, 'end')).toMatchObject([{ outcome: 'completed', filesSeen: 3, filesChanged: 3 }]);
  expect(eventsOf(first.events, 'plan_folder_missing')).toMatchObject([{ folder: join(agent.home, 'Videos') }]);

  await ask('PATCH', `/v1/plans/${plan.id}`, { exclude: ['*.iso', 'old/'] });
  writeFileSync(join(agent.home, 'Documents', 'letter.txt'), 'dear friend');
  const second = await agent.run('backup');
  expect(second).toMatchObject({ exitCode: 0 });
  expect(eventsOf(second.events, 'end')).toMatchObject([
    { filesSeen: 1, filesChanged: 1, filesDeleted: 0, filesExcluded: 2 },
  ]);
  expect(eventsOf(second.events, 'plan_folder_missing')).toEqual([]); // told once

  const back = join(scratch, 'back');
  await agent.succeed('restore', join(agent.home, 'Documents'), '--to', back);
  const restored = (name: string): string => readFileSync(join(back, name), 'utf8');
  expect(restored('Documents/letter.txt')).toBe('dear friend');
  expect(restored('Documents/film.iso')).toBe('large');
  expect(restored('Documents/old/note.txt')).toBe('old');

  const shown = await agent.run('plans');
  expect(eventsOf(shown.events, 'plan')).toMatchObject([
    {
      name: 'Papers',
      from: { kind: 'organization' },
      folders: [join(agent.home, 'Documents')],
      missing: [join(agent.home, 'Videos')],
      exclude: ['*.iso', 'old/'],
      faults: [],
      lastRun: { ended: true },
    },
  ]);
  const [{ lastRun, nextDue }] = eventsOf(shown.events, 'plan') as never as [
    { lastRun: { startedAt: number }; nextDue: number },
  ];
  expect(nextDue).toBe(lastRun.startedAt + 60 * 60_000);
  expect(await agent.succeed('status')).toMatchObject({ plans: ['Papers'] });
  writeFileSync(join(agent.home, 'Documents', 'new.iso'), 'no run has come by here');
  const { events: why } = await agent.run('status', join(agent.home, 'Documents', 'new.iso'));
  expect(why.at(-1)).toMatchObject({ stored: false, excludedBy: { rule: 'rule *.iso' } });

  // Paths on the command line are followed alone, and may be what no plan names.
  const named = await agent.succeed('backup', join(agent.home, 'elsewhere'));
  expect(named).toMatchObject({ outcome: 'completed', filesSeen: 1, filesDeleted: 0 });

  // A pattern that cannot be read: nothing is run, and the administrator sees why.
  await ask('PATCH', `/v1/plans/${plan.id}`, { exclude: ['{iso,old'] });
  const broken = await agent.run('backup');
  expect(broken.exitCode).toBe(1);
  expect(eventsOf(broken.events, 'start')).toEqual([]);
  expect(eventsOf(broken.events, 'plan_unreadable')).toMatchObject([
    { plan: 'Papers', faults: [expect.stringContaining('{iso,old')] },
  ]);
  const runs = await agent.run('runs');
  expect(eventsOf(runs.events, 'run')[0]).toMatchObject({ outcome: 'failed', reason: expect.stringContaining('{iso') });

  // `watch` takes it up once it can be read, and ends when it is told to.
  await ask('PATCH', `/v1/plans/${plan.id}`, { name: 'Papers again', exclude: [] });
  const watching = agent.start('watch');
  await new Promise<void>((resolve, reject) => {
    let said = '';
    watching.child.stdout!.on('data', (bytes) => {
      said += bytes;
      if (said.includes('"event":"end"')) resolve();
    });
    watching.done.then((ended) => reject(new Error(JSON.stringify(ended))));
  });
  watching.child.kill('SIGTERM');
  const watched = await watching.done;
  expect(watched.exitCode).toBe(130);
  expect(eventsOf(watched.events, 'start')).toMatchObject([{ plan: 'Papers again' }]);
  expect(eventsOf(watched.events, 'end')).toMatchObject([{ outcome: 'completed', filesSeen: 4, filesDeleted: 0 }]);
}, 120_000);
