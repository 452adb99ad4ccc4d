/**
 * A plan as this device understands it. What an administrator wrote is read whole or not at all: of a plan with a folder or a
 * pattern that cannot be understood nothing is run, because what it means to leave out might be sent, and what it means to
 * keep might not be.
 */
import { existsSync, realpathSync } from 'node:fs';
import { posix, win32 } from 'node:path';
import type { PlanMessage } from '../../protocol/messages.ts';
import { createExcludes } from '../files/excludes.ts';
import { platformRules, toArchivePath } from '../files/path-rules.ts';
import type { Platform } from '../files/types.ts';
import { type Surroundings, surroundings } from '../state/home.ts';

/** What the words of a plan mean here. */
export interface Here {
  platform: Platform;
  /** What `~` is: the home of whoever runs the agent; null: there is none. */
  home: string | null;
  /** What a plan without folders backs up. */
  homes: readonly string[];
}

export interface ReadPlan {
  plan: PlanMessage;
  /** Absolute, each once. Whether they are there is not asked yet. */
  folders: string[];
  /** Folders it names that are another platform's: 'C:\Data' on Linux. */
  elsewhere: string[];
  /** What cannot be understood, in words that name it. With any, the plan is not run. */
  faults: string[];
}

/** Names a plan of this device, whatever the case of its letters. */
export const planKey = ({ name }: Pick<PlanMessage, 'name'>): string => name.toLowerCase();

/** Whether a folder of it that is not on this device is as it should be: it was written for many devices. */
export const isForMany = ({ from }: PlanMessage): boolean => from.kind !== 'device';

/** Whose it is, in words. */
export function originInWords({ from }: PlanMessage): string {
  if (from.kind === 'device') return 'of this device';
  return from.kind === 'settings' ? 'by the defaults of the organization' : `of the organization ${from.name}`;
}

/** This machine. */
export function findHere(around: Surroundings = surroundings()): Here {
  const platform = platformRules(around.platform);
  const home = findHome(around.homeDir);
  // Whoever runs as root backs up a machine: the homes of all who have one there.
  const all = around.isRoot && platform !== 'win32' ? (platform === 'darwin' ? '/Users' : '/home') : null;
  const homes = [home, all !== null && existsSync(all) ? all : null].filter((each) => each !== null);
  return { platform, home, homes };
}

/** The folder itself where it is reached by a symbolic link. Accounts of services have '/' or a folder that is not there. */
function findHome(given: string): string | null {
  try {
    const home = realpathSync(given);
    return home === '/' ? null : home;
  } catch {
    return null;
  }
}

export function readPlan(plan: PlanMessage, here: Here): ReadPlan {
  const folders = new Set<string>();
  const elsewhere: string[] = [];
  const faults: string[] = [];
  if (plan.include.length === 0) {
    for (const home of here.homes) folders.add(home);
    if (here.homes.length === 0) faults.push('it names no folder, and whoever runs the agent has no home folder');
  }
  for (const text of plan.include) {
    const read = readFolder(text, here);
    if ('folder' in read) folders.add(read.folder);
    else if ('fault' in read) faults.push(`the folder ${text} ${read.fault}`);
    else if (isForMany(plan)) elsewhere.push(text);
    else faults.push(`the folder ${text} is a path of another platform`);
  }
  for (const pattern of plan.exclude) {
    const fault = patternFault(pattern, here);
    if (fault !== null) faults.push(fault);
  }
  return { plan, folders: [...folders], elsewhere, faults };
}

type Folder = { folder: string } | { elsewhere: true } | { fault: string };

/** Whole paths come to what the server takes them for (server/directory/devices/plans/folders.ts); `~` is the agent's alone. */
function readFolder(text: string, { platform, home }: Here): Folder {
  const isWindows = /^[A-Za-z]:[\\/]/.test(text) || text.startsWith('\\\\');
  const underHome = /^~(?:$|[\\/])/.test(text);
  const fault = folderFault(text, isWindows);
  if (fault !== null) return { fault };
  if (underHome) {
    if (home === null) return { fault: 'is in a home folder, and whoever runs the agent has none' };
    if (platform === 'win32') return { folder: win32.join(home, text.slice(1)) };
    return text.startsWith('~\\') ? { elsewhere: true } : { folder: withoutSlash(posix.join(home, text.slice(1))) };
  }
  if (isWindows) return platform === 'win32' ? { folder: win32.normalize(text) } : { elsewhere: true };
  if (!text.startsWith('/'))
    return { fault: 'is not a whole path: it begins neither with / nor with ~/ nor with a drive' };
  if (platform !== 'win32') return { folder: withoutSlash(posix.normalize(text)) };
  // As the archive names it.
  const drive = /^\/([A-Za-z]:)(\/.*)?$/.exec(text);
  if (drive) return { folder: win32.normalize(`${drive[1]}${drive[2] ?? '/'}`) };
  if (text.startsWith('/UNC/')) return { folder: win32.normalize(`//${text.slice('/UNC/'.length)}`) };
  return { elsewhere: true };
}

/** Why a text names no folder on any device; null: it may. */
function folderFault(text: string, isWindows: boolean): string | null {
  const prefix = /^\\\\\?\\/.exec(text)?.[0] ?? ''; // `\\?\`: the rest is taken as it is
  if (/[*?]/.test(text.slice(prefix.length))) return 'has a wildcard: folders are named one by one';
  if (text.startsWith('//')) return 'begins with two slashes: a network path is written \\\\server\\share';
  const names = text.split(isWindows || text.startsWith('~\\') ? /[\\/]/ : '/');
  if (names.some((name) => name === '.' || name === '..')) return "holds '.' or '..'";
  try {
    if (isWindows) toArchivePath(text, 'win32');
    else if (text.startsWith('/')) toArchivePath(text, 'linux');
    return null;
  } catch (error) {
    return `cannot be in an archive: ${(error as Error).message}`;
  }
}

function withoutSlash(path: string): string {
  return path.length > 1 ? path.replace(/\/+$/, '') : path;
}

function patternFault(pattern: string, { platform, home }: Here): string | null {
  const archiveHome = home === null ? null : toArchivePath(home, platform);
  if (archiveHome === null && /^!?~(?:$|[\\/])/.test(pattern.trim()))
    return `the exclude rule ${pattern} is of a home folder, and whoever runs the agent has none`;
  try {
    createExcludes({ platform, home: archiveHome, patterns: [pattern], defaults: false });
    return null;
  } catch (error) {
    return (error as Error).message;
  }
}
