/**
 * What each route is called on the command line. The words of a path, without its parameters, are the group; the method
 * says the verb: `list` and `create` for many, `show`, `update` and `delete` for one, `set` for PUT. A POST that is no
 * collection is an action, called as the last word of its path, `users block 12`; and so is a stream, `audit export`.
 *
 * What must stay true: a name depends on paths and methods alone, never on prose, since scripts are written with it.
 */
import { isPage, isStream, type Operation } from './operations.ts';

/** Where the rule gives a word that nobody would guess. Method and path as in the document. */
export const exceptions: Readonly<Record<string, string>> = {
  'POST /v1/users/{user}/roles': 'users roles give',
  'POST /v1/me/second-factor': 'me second-factor set-up',
  'GET /v1/restores/{id}/content': 'restores fetch',
  'POST /v1/restores/{id}/content': 'restores fetch-wrapped',
  'POST /v1/restore-reviews/{id}': 'restore-reviews decide',
  'GET /v1/devices/{guid}/retention/plan': 'devices retention plan show',
  'POST /v1/devices/{guid}/retention/plan': 'devices retention plan try',
};

/** Groups of the command itself. A route that would be called so is called by its method and path. */
export const ownCommands = ['sign-in', 'sign-out', 'whoami', 'help'];

/** Each operation under its words, in the order of the document. No two are the same. */
export function nameOperations(operations: readonly Operation[]): Map<string, Operation> {
  const named = new Map<string, Operation>();
  for (const operation of operations) {
    const wanted = exceptions[`${operation.method} ${operation.path}`] ?? ruledName(operation, operations);
    named.set(isFree(wanted, named) ? wanted : unruledName(operation), operation);
  }
  return named;
}

/** A word cannot be a command and a group of commands. */
function isFree(name: string, named: ReadonlyMap<string, Operation>): boolean {
  if (ownCommands.includes(name.split(' ')[0]!)) return false;
  return ![...named.keys()].some(
    (other) => other === name || other.startsWith(`${name} `) || name.startsWith(`${other} `),
  );
}

/** By what is unique whatever the others are: `other get-users-by-user`. */
function unruledName({ method, path }: Operation): string {
  return `other ${method.toLowerCase()}${path.replaceAll(/\{(\w+)\}/g, 'by-$1').replaceAll(/[^\w-]+/g, '-')}`;
}

function ruledName(operation: Operation, all: readonly Operation[]): string {
  const words = wordsOf(operation.path);
  const endsWithOne = operation.path.endsWith('}');
  const mayBeAction = operation.method === 'POST' || (operation.method === 'GET' && isStream(operation));
  if (mayBeAction && !endsWithOne && !isCollection(operation, all)) return words.join(' ');
  return [...words, verbOf(operation, endsWithOne, all)].join(' ');
}

/** `/v1/users/{user}/roles` -> users, roles */
function wordsOf(path: string): string[] {
  return path
    .split('/')
    .filter((word) => word !== '' && !word.startsWith('{'))
    .slice(1)
    .map((word) => kebab(word));
}

function verbOf(operation: Operation, endsWithOne: boolean, all: readonly Operation[]): string {
  switch (operation.method) {
    case 'GET':
      return !endsWithOne && (isPage(operation) || isStream(operation)) ? 'list' : forAll('show');
    case 'POST':
      return 'create';
    case 'PUT':
      return forAll('set');
    case 'PATCH':
      return forAll('update');
    default:
      return forAll(operation.method.toLowerCase());
  }
  /** What is done to one of them is called so; to all at once, otherwise. */
  function forAll(verb: string): string {
    const one = all.some((each) => each.method === operation.method && isOneOf(each.path, operation.path));
    return !endsWithOne && one ? `${verb}-all` : verb;
  }
}

/** There is something in it: one of its members or more below it, or another method at the same path. */
function isCollection(operation: Operation, all: readonly Operation[]): boolean {
  const { path } = operation;
  return all.some((each) => each.path.startsWith(`${path}/`) || (each.path === path && each !== operation));
}

function isOneOf(path: string, collection: string): boolean {
  return path.startsWith(`${collection}/{`) && path.indexOf('/', collection.length + 1) === -1;
}

/** `twoFactor` -> two-factor; what the command line is written in. */
export function kebab(name: string): string {
  return name
    .replaceAll(/([a-z0-9])([A-Z])/g, '$1-$2')
    .replaceAll('_', '-')
    .toLowerCase();
}
