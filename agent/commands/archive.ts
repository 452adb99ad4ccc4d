/** Which archive, which path and which moment a reading command means. */

import { lstat } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { Client } from '../client/client.ts';
import { platformRules, toArchivePath } from '../files/path-rules.ts';
import { resolveArchivePath } from '../files/roots.ts';
import type { Registration } from '../state/registration.ts';
import { checked } from './backup.ts';
import { createOutput, type Output, UsageError } from './output.ts';
import { parseMoment } from './parse.ts';
import { type CommonOptions, clientOf, explained, homeOf, registrationOf } from './session.ts';

export interface ReadingOptions extends CommonOptions {
  device?: string;
  at?: number;
}

export interface ReadingWorld {
  client: Client;
  registration: Registration;
  output: Output;
  archive: number;
}

export function withDeviceOption(command: Command): Command {
  return command.option('--device <guid or name>', "read another of the user's devices instead of this one");
}

export function withAtOption(command: Command): Command {
  return command.option(
    '--at <time>',
    "as it was then: '2026-03-01', '2026-03-01 14:30', an ISO time, or '3d' ago",
    checked(
      (text) => parseMoment(text, Date.now()),
      "is not a time since 1970 such as '2026-03-01' (to its end), '2026-03-01 14:30', '2026-03-01T14:30:00Z' or '3d' (ago)",
    ),
  );
}

/** Runs a command that reads an archive. */
export async function withArchive<T>(
  options: ReadingOptions,
  work: (world: ReadingWorld) => Promise<T>,
  connections = 1,
): Promise<T> {
  const output = createOutput({ json: options.json ?? false });
  const registration = await registrationOf(homeOf(options), output);
  const client = clientOf(registration, output, { connections });
  try {
    return await work({ client, registration, output, archive: await archiveOf(client, registration, options.device) });
  } catch (error) {
    throw explained(error, registration);
  } finally {
    client.destroy();
  }
}

async function archiveOf(client: Client, registration: Registration, device: string | undefined): Promise<number> {
  if (device === undefined) return registration.archive;
  const { archives } = await client.self();
  const found = archives.filter((archive) => archive.guid === device || archive.deviceName === device);
  if (found.length === 1) return found[0]!.archive;
  const known = archives
    .map((archive) => `  ${archive.guid.padEnd(20)} ${archive.deviceName}${archive.own ? ' (this one)' : ''}`)
    .join('\n');
  throw new UsageError(
    `${found.length === 0 ? 'no device' : 'more than one device'} is called '${device}'. These are there:\n${known}`,
  );
}

/** The archive path a person means: of something on this disk where it is, else the path as written. */
export async function archivePathOf(text: string | undefined): Promise<Buffer> {
  if (text === undefined) return Buffer.from('/');
  // Archive paths of Windows are taken as they are shown; elsewhere they look like local ones.
  if (process.platform === 'win32' && /^\/([A-Za-z]:|UNC(\/|$)|$)/.test(text))
    return Buffer.from(text.replace(/(?<=.)\/+$/, ''));
  const here = await lstat(text).then(
    () => true,
    () => false,
  );
  try {
    if (here) return await resolveArchivePath(text);
    return toArchivePath(
      process.platform === 'win32' ? resolve(text) : Buffer.from(resolve(text)),
      platformRules(process.platform),
    );
  } catch (error) {
    throw new UsageError(`'${text}' is not a path an archive can hold: ${(error as Error).message}`);
  }
}
