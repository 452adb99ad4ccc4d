/**
 * Names that are no plain text through zip and tar, from outside: the real server, the real agent, curl, and the programs
 * that open them. Precomposed and decomposed letters are two names; bytes that are no UTF-8 stay as they are in a tar.
 */
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect } from '@jest/globals';
import { WebClient } from '../loadtest/restoring-world.ts';
import { TestAgent } from './helpers/agent.ts';
import { type RunningServer, startServer } from './helpers/server.ts';
import { hasTools, testWith } from './helpers/tools.ts';

const run = promisify(execFile);
/** As it is on the disk, and as a zip carries it. */
const names: readonly { bytes: Buffer; inZip: string }[] = [
  { bytes: Buffer.from('caf\u00e9 (composed)'), inZip: 'caf\u00e9 (composed)' },
  { bytes: Buffer.from('cafe\u0301 (decomposed)'), inZip: 'cafe\u0301 (decomposed)' },
  { bytes: Buffer.from('caf\xe9 (latin-1)', 'latin1'), inZip: 'caf%{E9} (latin-1)' },
  { bytes: Buffer.from('\ud55c\uae00'.normalize('NFD')), inZip: '\ud55c\uae00'.normalize('NFD') },
  { bytes: Buffer.from('half a sign \xe2\x82', 'latin1'), inZip: 'half a sign %{E2}%{82}' },
  { bytes: Buffer.from('a\nnew line'), inZip: 'a%{0A}new line' },
  { bytes: Buffer.from('\u{1f44b}\u{1f3fd} \u4e16\u754c'), inZip: '\u{1f44b}\u{1f3fd} \u4e16\u754c' },
];
const content = (index: number): Buffer => Buffer.from(`the content of name ${index}\n`);
const inBytes = (folder: string): Buffer[] => readdirSync(folder, { encoding: 'buffer' }).sort(Buffer.compare);
const at = (folder: string, name: Buffer): Buffer => Buffer.concat([Buffer.from(`${folder}/`), name]);

let server: RunningServer;
let scratch: string;
let tree: string;
let agent: TestAgent;
let web: WebClient;

beforeAll(async () => {
  scratch = mkdtempSync(join(tmpdir(), 'holdfast-names-'));
  tree = join(scratch, 'tree');
  mkdirSync(tree);
  for (const [index, { bytes }] of names.entries()) writeFileSync(at(tree, bytes), content(index));
  server = await startServer();
  agent = new TestAgent();
  await agent.succeed(...agent.signIn(server, server.firstStart));
  await agent.succeed('backup', tree);
  web = new WebClient(server.url, server.certificateSha256);
  await web.signIn(server.firstStart);
});

afterAll(async () => {
  web?.close();
  agent?.remove();
  await server?.stop();
  rmSync(scratch, { recursive: true, force: true });
});

async function fetched(format: 'zip' | 'tar'): Promise<string> {
  const id = await web.plan({ device: await web.device(), path: tree, format });
  const file = join(scratch, `restored.${format}`);
  const header = `Authorization: Bearer ${web.token}`;
  const url = `${server.url}/v1/restores/${id}/content`;
  await run('curl', [
    '--silent',
    '--show-error',
    '--fail-with-body',
    '--insecure',
    '--output',
    file,
    '-H',
    header,
    url,
  ]);
  await web.assertWhole(
    id,
    names.reduce((sum, _, index) => sum + content(index).byteLength, 0),
  );
  return file;
}

const opening = { env: { ...process.env, LC_ALL: 'C.UTF-8' } };

/** libarchive composes letters by itself, of names that are UTF-8. */
function madeBy(program: string, name: Buffer): Buffer {
  const text = name.toString();
  return program === 'bsdtar' && Buffer.from(text).equals(name) ? Buffer.from(text.normalize('NFC')) : name;
}

/** @param as how this format names each */
function expectNames(folder: string, as: (each: (typeof names)[number]) => Buffer): void {
  expect(inBytes(folder)).toEqual(names.map(as).sort(Buffer.compare));
  for (const [index, each] of names.entries())
    expect(readFileSync(at(folder, as(each))).equals(content(index))).toBe(true);
}

testWith('curl', 'tar')('a tar has every name as it is', async () => {
  const file = await fetched('tar');
  for (const program of ['tar', 'bsdtar']) {
    if (!hasTools(program)) continue;
    const folder = join(scratch, program);
    mkdirSync(folder);
    await run(program, ['-xf', file, '-C', folder], opening);
    expectNames(join(folder, 'tree'), ({ bytes }) => madeBy(program, bytes));
  }
});

testWith('curl', 'unzip')('a zip has each that it can carry, another for the rest, and a list of those', async () => {
  const file = await fetched('zip');
  await run('unzip', ['-tqq', file]);
  for (const program of ['unzip', 'bsdtar']) {
    if (!hasTools(program)) continue;
    const folder = join(scratch, `${program}-zip`);
    mkdirSync(folder);
    const args = program === 'unzip' ? ['-qq', file, '-d', folder] : ['-xf', file, '-C', folder];
    await run(program, args, opening);
    expectNames(join(folder, 'tree'), ({ inZip }) => madeBy(program, Buffer.from(inZip)));
    const list = readFileSync(join(folder, 'RESTORE-NAMES.txt'), 'utf8');
    for (const { bytes, inZip } of names) {
      const isOther = !bytes.equals(Buffer.from(inZip));
      expect([inZip, list.includes(inZip)]).toEqual([inZip, isOther]);
    }
  }
});
