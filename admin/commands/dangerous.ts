/** What is not done without asking: it takes something away that people miss, and is laborious or impossible to undo. */
import { Option } from 'commander';
import type { Operation } from '../document/operations.ts';
import { parametersIn } from '../document/operations.ts';
import { askLine, confirm } from './ask.ts';
import { printable } from './printable.ts';
import { ask, type Session } from './session.ts';

/** Last words of paths. What is missing here is asked for nothing, so the list is long rather than short. */
const dangerousActions = new Set([
  'cold-until',
  'deactivate',
  'deauthorize',
  'delete',
  'end-sessions',
  'expire',
  'merge',
  'offboard',
  'password-reset',
  'purge',
  'push',
  'registration-key',
  'release',
  'remove',
  'replace',
  'reset',
  'retention',
  'revoke',
  'rotate',
  'secret',
  'set-back',
  'suspend',
  'wipe',
]);

interface Subject {
  /** Of one thing, as in `/v1/users/{user}`. */
  path: string;
  params: readonly string[];
}

interface PushedRestore {
  to?: { device?: unknown; original?: unknown } | null;
  existing?: unknown;
}

/** What is dangerous by what is sent, and what it is about then: no path names it. */
const dangerousBodies = new Map([
  [
    'POST /v1/pushed-restores',
    {
      isDangerous: ({ to, existing }: PushedRestore): boolean => existing === 'overwrite' || to?.original === true,
      subject: ({ to }: PushedRestore): Subject => ({ path: '/v1/devices/{guid}', params: [String(to?.device)] }),
    },
  ],
]);

const byBody = ({ method, path }: Operation) => dangerousBodies.get(`${method} ${path}`);

/** @param body that is sent with it */
export function isDangerous(operation: Operation, body?: unknown): boolean {
  const { method, path } = operation;
  if (method === 'DELETE' || (method !== 'GET' && dangerousActions.has(path.split('/').at(-1)!))) return true;
  return byBody(operation)?.isDangerous((body ?? {}) as PushedRestore) ?? false;
}

/** Whether it asks, if only for some of what may be sent with it. */
export const asksOf = (operation: Operation): boolean => isDangerous(operation) || byBody(operation) !== undefined;

/** Every command takes it, since scripts say it always; one that asks nothing shows it nowhere, and it changes nothing. */
export function yesOption({ asks = false } = {}): Option {
  return new Option('--yes', 'without asking').hideHelp(!asks);
}

/**
 * Asks for the name of what it is about, so that one that is not meant is noticed.
 * @throws UsageError when it is not typed
 */
export async function confirmDanger(
  session: Session,
  { operation, params, body }: { operation: Operation; params: readonly string[]; body: unknown },
  operations: readonly Operation[],
): Promise<void> {
  const subject = byBody(operation)?.subject((body ?? {}) as PushedRestore) ?? subjectOf(operation, params);
  const id = subject?.params.at(-1);
  const name = subject && (await nameOf(session, subject, operations));
  const what = name === null ? '' : `: ${printable(name)} (${printable(id!)})`;
  const says = `${operation.summary}${what}, on ${session.connection.origin}`;
  await confirm({ says, name: name ?? id ?? 'yes' }, askLine);
}

/** The last of the path; null: it names nothing. */
function subjectOf({ path }: Operation, params: readonly string[]): Subject | null {
  const last = parametersIn(path).at(-1);
  return last === undefined ? null : { path: path.slice(0, path.indexOf(`{${last}}`) + last.length + 2), params };
}

/** What it is called; null when it has no name that may be read. */
async function nameOf(
  session: Session,
  { path, params }: Subject,
  operations: readonly Operation[],
): Promise<string | null> {
  if (!operations.some((each) => each.method === 'GET' && each.path === path)) return null;
  try {
    const { body } = await ask(session, { method: 'GET', path: filled(path, params), repeatable: true });
    const { name } = JSON.parse(await textOf(body)) as { name?: unknown };
    return typeof name === 'string' && name.trim() !== '' ? name : null;
  } catch {
    // Who may do it and not look is asked for the number, and what else is wrong shows when it is done.
    return null;
  }
}

async function textOf(body: AsyncIterable<Buffer>): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of body) parts.push(part);
  return Buffer.concat(parts).toString('utf8');
}

/** `/v1/users/{user}` with its parameters, escaped. */
export function filled(path: string, params: readonly string[]): string {
  let at = 0;
  return path.replaceAll(/\{\w+\}/g, () => encodeURIComponent(params[at++]!));
}
