/** Examples of a command for its help: with all that it needs, and what the server's description has as an example. Pure. */
import type { Field } from '../document/fields.ts';
import { hasNextPage, isStream, type Operation } from '../document/operations.ts';
import type { GivenOption, GivenOptions } from './options.ts';

export function examplesOf(name: string, operation: Operation, given: GivenOptions): string[] {
  const params = operation.inPath.map(({ name }) => (name === 'guid' ? '1000001' : '3'));
  const start = ['npm run admin --', name, ...params].join(' ');
  const ofQuery = given.fields.filter(({ in: where, field }) => where === 'query' && field.required).map(exampleOf);
  const query = [start, ...ofQuery].join(' ');
  return [
    'Examples:',
    `  ${[query, ...bodyInExample(operation, given)].join(' ')}`,
    ...(operation.body ? [`  ${query} --body @FILE.json`] : []),
    ...(hasNextPage(operation) ? [`  ${query} --all --json`] : []),
    ...(isStream(operation) ? [`  ${query} --output FILE`] : []),
  ];
}

/** The server's own example, for a body may need one of several fields, and its schema cannot say so; else what is needed. */
function bodyInExample({ body }: Operation, { fields }: GivenOptions): string[] {
  const inBody = fields.filter(({ in: where }) => where === 'body');
  const [example] = body?.examples ?? [];
  return example === undefined ? neededOf(inBody).map(exampleOf) : inBody.flatMap((each) => asIn(example, each));
}

/** As an example of a whole body gives it; not at all, where it does not, or by the options of what is inside. */
function asIn(example: unknown, { field, flag }: GivenOption): string[] {
  const at = (value: unknown, name: string): unknown => (value as Record<string, unknown> | null | undefined)?.[name];
  const value = field.path.reduce(at, example);
  if (value === undefined || field.isTakenApart) return [];
  if (field.secret) return [`${flag} FILE`];
  const values = field.kind === 'list' && Array.isArray(value) ? value : [value];
  return values.map((each) => `${flag} ${quoted(typeof each === 'string' ? each : JSON.stringify(each))}`);
}

/** As a shell takes it for one word. */
export const quoted = (text: string): string =>
  /^[\w./:@+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

/** Where nothing is needed, the first one. An object is given by what is in it, where none of that is a list or JSON. */
function neededOf(inBody: readonly GivenOption[]): GivenOption[] {
  const needed = inBody.filter(({ field }) => field.needed);
  const partsOf = (object: GivenOption): GivenOption[] => needed.filter((each) => isInside(each, object));
  const isWhole = (each: GivenOption): boolean => partsOf(each).some(({ field }) => field.kind === 'any');
  const shown = needed.filter(
    (each) =>
      (partsOf(each).length === 0 || isWhole(each)) && !needed.some((other) => isWhole(other) && isInside(each, other)),
  );
  if (shown.length > 0) return shown;
  const top = inBody.find(({ field: { kind, path } }) => path.length === 1 && kind !== 'object');
  const deep = inBody.find(({ field: { kind, path } }) => path.length > 1 && kind !== 'object' && kind !== 'any');
  return [top ?? deep].filter((each) => each !== undefined);
}

function isInside({ field: { path } }: GivenOption, { field: { path: above } }: GivenOption): boolean {
  return path.length > above.length && above.every((name, at) => name === path[at]);
}

function exampleOf({ field: { path, kind, choices, item, secret, ...field }, flag }: GivenOption): string {
  if (secret) return `${flag} FILE`;
  const value = item?.choices[0] ?? choices[0] ?? field.example ?? item?.example ?? null;
  if (value !== null) return `${flag} ${quoted(value)}`;
  const kinds: Partial<Record<Field['kind'], string>> = {
    boolean: 'true',
    object: "'{...}'",
    any: "'{...}'",
  };
  return `${flag} ${kinds[kind === 'list' ? (item?.kind ?? 'text') : kind] ?? path.at(-1)!.toUpperCase()}`;
}
