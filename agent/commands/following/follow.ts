/** What the server tells this device to do, as the commands `watch` and `commands` follow it. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ChannelFrame, CommandEndRequest } from '../../../protocol/commands.ts';
import { Problem } from '../../../protocol/problems.ts';
import type { Client } from '../../client/client.ts';
import { holdChannel, holdOnce } from '../../following/channel.ts';
import { Follower, type FollowerEvent } from '../../following/follower.ts';
import { targetInWords } from '../../following/places.ts';
import { findHere } from '../../plans/read-plan.ts';
import { type Registration, readRegistration } from '../../state/registration.ts';
import type { Output } from '../output.ts';
import { clientOf } from '../session.ts';
import { bytesInWords, countInWords, durationInWords, pathForJson, pathInWords } from '../words.ts';
import { RestoreNumbers } from './restore-numbers.ts';

export interface FollowingWorld {
  client: Client;
  registration: Registration;
  home: string;
  output: Output;
}

export const refusalWords = 'this device takes no commands: whoever runs it has started it with --no-push';

/** Fetches run side by side; two connections keep one lost packet from stopping them all. */
const connections = 2;
/** A restore that was cancelled did what it was told. */
const wholeOutcomes: ReadonlySet<CommandEndRequest['outcome']> = new Set(['completed', 'cancelled']);
/** Whether all is done. */
const lookEveryMs = 100;

/** Follows commands until the signal. Never fails: a server that is away, or knows none, is asked again. */
export async function followCommands(
  world: FollowingWorld,
  options: { push: boolean; signal: AbortSignal },
): Promise<void> {
  const { signal } = options;
  const { output } = world;
  try {
    const { follower, hear } = makeFollower(world, options);
    const channel = holdChannel({
      commands: world.client.commands,
      signal,
      onFrame: hear,
      onEnd: (error, delayMs) => output.emit('channel_ended', { message: error.message, delayMs: Math.round(delayMs) }),
    });
    await Promise.all([channel, follower.run()]);
  } catch (error) {
    output.note(`Commands of the server are not followed any more: ${(error as Error).message}`);
    output.emit('following_failed', { message: (error as Error).message });
  }
}

/**
 * Carries out what waits for this device.
 * @returns how many commands there were, those that this agent does not understand too; and how many restores failed, were left
 *   out in part, or have an end that the server does not take
 * @throws Problem not_found from a server that sends no commands; what kept it from being asked
 */
export async function carryOutCommands(
  world: FollowingWorld,
  signal: AbortSignal,
): Promise<{ commands: number; notWhole: number }> {
  const done = new AbortController();
  const either = AbortSignal.any([signal, done.signal]);
  const notWhole = new Set<number>();
  const onEvent = (event: FollowerEvent): void => {
    const isWhole = event.type !== 'end_refused' && (event.type !== 'ended' || wholeOutcomes.has(event.end.outcome));
    if (!isWhole) notWhole.add(event.id);
  };
  const { follower, hear } = makeFollower(world, { push: true, signal: either, onEvent });
  let commands = 0;
  const onFrame = (frame: ChannelFrame): void => {
    if (frame.type === 'command' || frame.type === 'unreadable') commands++;
    hear(frame);
  };
  const work = follower.run();
  try {
    const error = await holdOnce({ commands: world.client.commands, signal: either, onFrame, once: true });
    if (error && !signal.aborted) throw error;
    // An answer that came to its end was all that is open: what was begun and is open no more is tidied up after.
    if (!signal.aborted) follower.onFrame({ type: 'heartbeat' });
    while (!signal.aborted && !follower.idle) await sleep(lookEveryMs, undefined, { signal }).catch(() => undefined);
    return { commands, notWhole: notWhole.size };
  } finally {
    done.abort();
    await work;
  }
}

interface Following {
  push: boolean;
  signal: AbortSignal;
  /** Beside telling people. */
  onEvent?: (event: FollowerEvent) => void;
}

interface Followed {
  follower: Follower;
  /** Takes what the channel says. */
  hear: (frame: ChannelFrame) => void;
}

function makeFollower(world: FollowingWorld, { push, signal, onEvent }: Following): Followed {
  const { client, home, output } = world;
  const { platform, homes } = findHere();
  const numbers = new RestoreNumbers();
  const follower = new Follower({
    commands: client.commands,
    openSource: () => {
      const source = clientOf(world.registration, output, { connections });
      return { source, close: () => source.destroy() };
    },
    registration: () => readRegistration(home) ?? world.registration,
    home,
    here: { systemPlatform: process.platform, platform, homes },
    refusal: push ? null : refusalWords,
    signal,
    onEvent: (event) => {
      onEvent?.(event);
      tell(output, event, numbers);
    },
  });
  const hear = (frame: ChannelFrame): void => {
    numbers.hear(frame);
    follower.onFrame(frame);
  };
  return { follower, hear };
}

function tell(output: Output, event: FollowerEvent, numbers: RestoreNumbers): void {
  const id = 'command' in event ? event.command.id : event.id;
  const name = numbers.inWords(id);
  const known = { id, ...numbers.of(id) };
  if (event.type === 'ended') tellEnd(output, { name, known }, event.end);
  else if (event.type === 'left') {
    output.note(`Unfinished files of ${name} could not be taken away: ${event.error.message}`);
    output.emit('push_left', { ...known, message: event.error.message });
  } else if (event.type === 'end_refused') {
    output.note(`The server refuses what it was told of the end of ${name}: ${event.error.message}`);
    output.emit('push_end_refused', { ...known, message: event.error.message });
  } else if (event.type === 'begun') {
    const { command } = event;
    const where = targetInWords(command);
    const what = `${countInWords(command.files)} files, ${bytesInWords(command.bytes)}`;
    output.note(`Restoring ${what} to ${where}, as the server says (${name}).`);
    output.emit('push_begun', { ...known, to: where, files: command.files, bytes: command.bytes });
  } else {
    const { error, delayMs } = event;
    output.note(`${capital(name)} waits for ${durationInWords(delayMs)}: ${error.message}`);
    output.emit('push_delayed', { ...known, message: error.message, delayMs: Math.round(delayMs) });
  }
}

const capital = (words: string): string => words.charAt(0).toUpperCase() + words.slice(1);

function tellEnd(
  output: Output,
  { name, known }: { name: string; known: { id: number; restore?: number } },
  { outcome, counts, problems, why }: CommandEndRequest,
): void {
  const files = `${countInWords(counts.filesRestored)} files restored, ${countInWords(counts.filesIdentical)} there already`;
  output.note(
    `${capital(name)} ${outcome}: ${files}, ${countInWords(counts.problems)} left out.${why ? ` ${why}` : ''}`,
  );
  for (const { path, reason, detail } of problems)
    output.note(`  LEFT OUT: ${pathInWords(path)}: ${reason}${detail ? ` (${detail})` : ''}`);
  output.emit('push_end', {
    ...known,
    outcome,
    ...(why && { why }),
    ...counts,
    leftOut: problems.map(({ path, reason, detail }) => ({ ...pathForJson(path), reason, detail })),
  });
}

/** Whether an error of asking says that the server sends no commands. */
export const sendsNoCommands = (error: unknown): boolean => error instanceof Problem && error.code === 'not_found';
