/** For tests of commands to devices: devices with tokens, servers of one catalog, and a client of the channel that believes nothing. */
import { randomBytes } from 'node:crypto';
import { type ClientHttp2Session, type ClientHttp2Stream, constants } from 'node:http2';
import type { z } from 'zod';
import {
  ChannelFrame,
  type Command,
  type CommandEndRequest,
  CommandProgressAnswer,
  type RestoreCommand,
} from '../../protocol/commands.ts';
import { decodeFrames, decodeMessage, encodeMessage, msgpackType } from '../../protocol/wire.ts';
import { tokenHash } from '../../server/directory/sign-in/tokens.ts';
import { h2, startTestServer, type TestServer, type TestServerOptions, until } from '../../server/http/testing.ts';
import { type RawAnswer, rawRequest } from '../helpers/raw-http.ts';
import { newArchive } from '../helpers/storage.ts';
import { holder, world } from './restoring.ts';
import type { Answer, Holder } from './world.ts';

export interface TestDevice {
  guid: string;
  token: string;
  vault: number;
  archive: number;
}

let guids = 7_000_000;

/** One more device of somebody, with an archive of its own in their vault. */
export async function newDevice(
  { user, tenant = world.tenant }: { user: number; tenant?: number },
  { platform = 'linux', name = 'target' } = {},
): Promise<TestDevice> {
  const [{ vault: in_ } = { vault: undefined }] = await world.storage.rows<{ vault: number }>(
    'SELECT vault_id AS vault FROM vaults WHERE user_id = $1',
    [user],
  );
  const { vault, archive } = await newArchive(world.storage, in_);
  const token = randomBytes(32).toString('base64url');
  const guid = String(++guids);
  await world.storage.rows(
    `INSERT INTO devices (tenant_id, user_id, guid, name, platform, agent_version, token_sha256, vault_id, archive_id)
     VALUES ($1, $2, $3, $8, $7, '1', $4, $5, $6)`,
    [tenant, user, guid, tokenHash(token), vault, archive, platform, name],
  );
  return { guid, token, vault, archive };
}

/** Another server of the same catalog. */
export function startReplica(settings: TestServerOptions['settings'] = {}): Promise<TestServer> {
  const { storage, directory } = world;
  return startTestServer({ storage, directory, cleartext: true, settings: { restorePlanMs: 30_000, ...settings } });
}

/** A device that follows commands on one server, and says what it is told to. */
export class TestFollower {
  readonly device: TestDevice;
  readonly session: ClientHttp2Session;
  readonly frames: z.infer<typeof ChannelFrame>[] = [];
  /** How the long answer ended; null: it has not. */
  ended: 'in order' | 'cut' | null = null;
  status = 0;
  readonly stream: ClientHttp2Stream;

  static async connect(server: { origin: string }, device: TestDevice, query = ''): Promise<TestFollower> {
    const follower = new TestFollower(await h2(server), device, query);
    await until(() => follower.status !== 0);
    return follower;
  }

  private constructor(session: ClientHttp2Session, device: TestDevice, query: string) {
    this.session = session;
    this.device = device;
    this.stream = session.request({ ':path': `/v1/self/commands${query}`, authorization: `Bearer ${device.token}` });
    this.stream.on('response', (headers) => {
      this.status = headers[':status'] ?? 0;
    });
    this.stream.on('error', () => {});
    this.stream.on('close', () => {
      if (this.stream.rstCode !== constants.NGHTTP2_NO_ERROR) this.ended ??= 'cut';
    });
    void this.#read();
  }

  async #read(): Promise<void> {
    try {
      for await (const frame of decodeFrames(ChannelFrame, this.stream)) this.frames.push(frame);
      this.ended ??= this.stream.rstCode === constants.NGHTTP2_NO_ERROR ? 'in order' : 'cut';
    } catch {
      this.ended ??= 'cut';
    }
  }

  get commands(): Command[] {
    return this.frames.flatMap((frame) => (frame.type === 'command' ? [frame.command] : []));
  }

  get cancelled(): number[] {
    return this.frames.flatMap((frame) => (frame.type === 'cancel' ? [frame.id] : []));
  }

  /** The restore that has come, and only one. */
  async restore(): Promise<RestoreCommand> {
    await until(() => this.commands.length > 0, 8_000);
    const [command] = this.commands;
    if (command?.kind !== 'restore') throw new Error(`a ${command?.kind}`);
    return command;
  }

  say(command: number, what: 'progress' | 'end' | 'answer', body: object): Promise<RawAnswer> {
    const bytes = encodeMessage(body);
    const path = `/v1/self/commands/${command}/${what}`;
    const headers = { ':method': 'POST', ':path': path, 'content-type': msgpackType };
    return rawRequest(this.session, { ...headers, authorization: `Bearer ${this.device.token}` }, bytes);
  }

  async progress(command: number, attempt: Buffer, done = 0): Promise<string> {
    const counts = { filesSeen: 3, filesDone: done, bytesSeen: 9, bytesDone: done, bytesFetched: done };
    const { status, body } = await this.say(command, 'progress', { attempt, ...counts });
    if (status !== 200) throw new Error(`${status} ${body}`);
    return decodeMessage(CommandProgressAnswer, body).go;
  }

  end(command: number, attempt: Buffer, more: Partial<CommandEndRequest> = {}): Promise<RawAnswer> {
    return this.say(command, 'end', { attempt, outcome: 'completed', counts: noCounts, ...more });
  }

  close(): void {
    this.session.destroy();
  }
}

export const noCounts = {
  filesRestored: 0,
  filesIdentical: 0,
  folders: 0,
  symlinks: 0,
  bytesRestored: 0,
  bytesResumed: 0,
  bytesFetched: 0,
  problems: 0,
  notices: 0,
};

export const newAttempt = (): Buffer => randomBytes(16);

/** A second device of the archive's user. */
export let target: TestDevice;
const followers: TestFollower[] = [];

/** After the world of restores: its user may push to their own devices. */
export async function openPushing(): Promise<void> {
  target = await newDevice(holder);
  // It has pushrestore.personal, and no more than that as far as oneself.
  await world.storage.rows(
    `INSERT INTO user_roles (tenant_id, user_id, role, scope, organization_id) VALUES ($1, $2, 'Cross Org Admin - No Restore', 'self', $3)`,
    [world.tenant, holder.user, world.places.own.organization],
  );
}

/** After each test. */
export async function endFollowing(): Promise<void> {
  for (const follower of followers.splice(0)) follower.close();
  await world.storage.rows("DELETE FROM device_commands WHERE state <> 'ended'");
}

export const push = (more: object = {}, who: Holder = holder): Promise<Answer> =>
  world.ask('POST', '/v1/pushed-restores', {
    token: who.token,
    body: { device: holder.guid, paths: ['/d'], to: { device: target.guid, folder: '/restored' }, ...more },
  });
export async function pushed(more: object = {}, who: Holder = holder): Promise<number> {
  const { status, json, text: said } = await push(more, who);
  if (status !== 201) throw new Error(`${status} ${said}`);
  return json.id as number;
}
export const shown = async (id: number, who: Holder = holder) =>
  (await world.ask('GET', `/v1/pushed-restores/${id}`, { token: who.token })).json as Record<string, never> & {
    state: string;
  };
export const follow = async (device = target, query = ''): Promise<TestFollower> => {
  const follower = await TestFollower.connect(world.server, device, query);
  followers.push(follower);
  return follower;
};
/** The target's agent, and the one command that it is told. */
export async function told() {
  const follower = await follow();
  return { follower, command: (await follower.restore()).id };
}
/** One that its device has begun, and done so much of. */
export async function running(more: object = {}, { who = holder, done = 0 }: { who?: Holder; done?: number } = {}) {
  const id = await pushed(more, who);
  const { follower, command } = await told();
  const attempt = newAttempt();
  const go = await follower.progress(command, attempt, done);
  if (go !== 'on') throw new Error(`it is to be ${go}`);
  return { id, follower, command, attempt };
}
export const cancel = (id: number, who: Holder = holder) =>
  world.ask('POST', `/v1/restores/${id}/cancel`, { token: who.token });
export const commandOf = async (restore: number) => {
  const [row] = await world.storage.rows<{ id: number; state: string }>(
    'SELECT command_id AS id, state FROM device_commands WHERE restore_id = $1',
    [restore],
  );
  return row!;
};
