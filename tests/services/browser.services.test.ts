/**
 * A browser saves a restore: a page, of whatever site, whose form brings the access token, and Chromium, which is told
 * nothing but to open the page. What it has saved is opened by programs that know nothing of us.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { WebClient } from '../../loadtest/restoring-world.ts';
import { TestAgent } from '../helpers/agent.ts';
import { type RunningServer, startServer } from '../helpers/server.ts';

const run = promisify(execFile);
const MiB = 1024 * 1024;
const content = randomBytes(40 * MiB);
let scratch: string;
let server: RunningServer;
let api: WebClient;
let agent: TestAgent;
let tree: string;
let page: Server;
let shown = '';
let browser: Browser;

beforeAll(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'holdfast-browser-'));
  tree = join(scratch, 'tree');
  mkdirSync(join(tree, 'ünïcode'), { recursive: true });
  writeFileSync(join(tree, 'ünïcode', 'größe'), content);
  writeFileSync(join(tree, 'a text'), 'a text\n');
  server = await startServer();
  agent = new TestAgent();
  await agent.succeed(...agent.signIn(server, server.firstStart));
  await agent.succeed('backup', tree);
  api = new WebClient(server.url, server.certificateSha256);
  page = createServer((_request, response) => {
    response.setHeader('Content-Type', 'text/html; charset=utf-8').end(shown);
  });
  await new Promise<void>((resolve) => page.listen(0, '127.0.0.1', resolve));
  browser = await Browser.start(scratch);
}, 180_000);

afterAll(async () => {
  await browser?.end();
  page?.close();
  api?.close();
  agent?.remove();
  await server?.stop();
  rmSync(scratch, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
});

/** Chromium, spoken to over its debugging port. */
class Browser {
  readonly #child: ChildProcess;
  readonly #socket: WebSocket;
  readonly #answers = new Map<number, (answer: { result?: never; error?: { message: string } }) => void>();
  readonly #listeners = new Set<(event: { method: string; params: Record<string, unknown> }) => void>();
  readonly downloads: string;
  #asked = 0;

  private constructor(child: ChildProcess, socket: WebSocket, downloads: string) {
    this.#child = child;
    this.#socket = socket;
    this.downloads = downloads;
    socket.addEventListener('message', ({ data }) => {
      const said = JSON.parse(String(data));
      if (said.id === undefined) for (const listener of this.#listeners) listener(said);
      else this.#answers.get(said.id)?.(said);
    });
  }

  static async start(folder: string): Promise<Browser> {
    const downloads = join(folder, 'downloads');
    mkdirSync(downloads);
    const child = spawn(
      'chromium',
      [
        '--headless=new',
        '--no-sandbox', // the tests run as root in a container
        '--disable-gpu',
        '--disable-dev-shm-usage',
        '--ignore-certificate-errors', // the server's own, which a person would be asked about
        '--remote-debugging-port=0',
        `--user-data-dir=${join(folder, 'profile')}`,
        'about:blank',
      ],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    const url = await new Promise<string>((resolve, reject) => {
      let said = '';
      child.stderr!.on('data', (bytes) => {
        said += bytes;
        const found = /DevTools listening on (ws:\S+)/.exec(said);
        if (found) resolve(found[1]!);
      });
      child.once('error', reject);
      child.once('close', () => reject(new Error(`Chromium ended: ${said}`)));
    });
    const socket = new WebSocket(url);
    await new Promise((resolve, reject) => {
      socket.addEventListener('open', resolve);
      socket.addEventListener('error', reject);
    });
    const browser = new Browser(child, socket, downloads);
    await browser.#ask('Browser.setDownloadBehavior', {
      behavior: 'allow',
      downloadPath: downloads,
      eventsEnabled: true,
    });
    return browser;
  }

  #ask(method: string, params: object): Promise<unknown> {
    const id = ++this.#asked;
    this.#socket.send(JSON.stringify({ id, method, params }));
    return new Promise((resolve, reject) => {
      this.#answers.set(id, ({ result, error }) => (error ? reject(new Error(error.message)) : resolve(result)));
    });
  }

  /** Opens a page and waits until what it saves has ended. @returns how, and under which name */
  async saves(url: string): Promise<{ state: string; name: string }> {
    let name = '';
    const ended = new Promise<{ state: string; name: string }>((resolve) => {
      const listen = ({ method, params }: { method: string; params: Record<string, unknown> }): void => {
        if (method === 'Browser.downloadWillBegin') name = String(params.suggestedFilename);
        if (method !== 'Browser.downloadProgress' || params.state === 'inProgress') return;
        this.#listeners.delete(listen);
        resolve({ state: String(params.state), name });
      };
      this.#listeners.add(listen);
    });
    await this.#ask('Target.createTarget', { url });
    return ended;
  }

  async end(): Promise<void> {
    const ended = new Promise((resolve) => this.#child.once('close', resolve));
    this.#child.kill('SIGTERM');
    await ended;
  }
}

/** A page of another site, as a dashboard has it: the token is in the form's body, and nowhere in an address. */
function showForm(restore: number, token: string): void {
  shown = `<!doctype html><form method="post" action="${server.url}/v1/restores/${restore}/content">
<input type="hidden" name="access_token" value="${token}"></form><script>document.forms[0].submit()</script>`;
}

const pageUrl = (): string => `http://127.0.0.1:${(page.address() as AddressInfo).port}/`;

test.each(['zip', 'tar'] as const)(
  'a form that brings the token is answered with a %s that the browser saves',
  async (format) => {
    await api.signIn(server.firstStart);
    const [device] = (await api.ask<{ items: { guid: string }[] }>('GET', '/v1/devices')).items;
    const body = { device: device!.guid, paths: [tree], format };
    const { id } = await api.ask<{ id: number }>('POST', '/v1/restores', body);
    showForm(id, api.token);
    const { state, name } = await browser.saves(pageUrl());
    expect({ state, name }).toEqual({ state: 'completed', name: expect.stringMatching(new RegExp(`\\.${format}$`)) });
    const file = join(browser.downloads, name);
    const folder = join(scratch, `opened-${format}`);
    mkdirSync(folder);
    if (format === 'zip') {
      expect((await run('unzip', ['-t', file])).stdout).toMatch(/No errors detected/);
      await run('bsdtar', ['-xf', file, '-C', folder]);
    } else await run('tar', ['-xf', file, '-C', folder]);
    expect(readdirSync(join(folder, 'tree')).sort()).toEqual(['a text', 'ünïcode']);
    expect(readFileSync(join(folder, 'tree', 'ünïcode', 'größe')).equals(content)).toBe(true);
    expect(await api.ask('GET', `/v1/restores/${id}`)).toMatchObject({ state: 'completed' });
  },
  120_000,
);

test('a form with another token saves nothing', async () => {
  await api.signIn(server.firstStart);
  const [device] = (await api.ask<{ items: { guid: string }[] }>('GET', '/v1/devices')).items;
  const { id } = await api.ask<{ id: number }>('POST', '/v1/restores', { device: device!.guid, paths: [tree] });
  const before = readdirSync(browser.downloads);
  showForm(id, 'no-token-of-anybody');
  const saved = browser.saves(pageUrl()).then(({ state }) => state);
  expect(await Promise.race([saved, new Promise((resolve) => setTimeout(() => resolve('nothing'), 3_000))])).not.toBe(
    'completed',
  );
  expect(readdirSync(browser.downloads)).toEqual(before);
  expect(await api.ask('GET', `/v1/restores/${id}`)).toMatchObject({ state: 'planned' });
}, 60_000);
