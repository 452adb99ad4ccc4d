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
  'revoke',
  'rotate',
  'secret',
  'suspend',
  'wipe',
]);

export function isDangerous({ method, path }: Operation): boolean {
  return method === 'DELETE' || (method !== 'GET' && dangerousActions.has(path.split('/').at(-1)!));
}

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
  operation: Operation,
  params: readonly string[],
  operations: readonly Operation[],
): Promise<void> {
  const name = await nameOf(session, operation, params, operations);
  const what = name === null ? '' : `: ${printable(name)} (${printable(params.at(-1)!)})`;
  const says = `${operation.summary}${what}, on ${session.connection.origin}`;
  await confirm({ says, name: name ?? params.at(-1) ?? 'yes' }, askLine);
}

/** What the last of the path is called; null when it has no name that may be read. */
async function nameOf(
  session: Session,
  operation: Operation,
  params: readonly string[],
  operations: readonly Operation[],
): Promise<string | null> {
  const last = parametersIn(operation.path).at(-1);
  if (last === undefined) return null;
  const path = operation.path.slice(0, operation.path.indexOf(`{${last}}`) + last.length + 2);
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
