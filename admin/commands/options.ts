/** The options of an operation's command: made from its schemas, and read back as the query and the body to send. */
import { type Command, Option } from 'commander';
import { type Field, fieldOf, fieldsOf, put, readValue } from '../document/fields.ts';
import { kebab } from '../document/names.ts';
import type { Operation } from '../document/operations.ts';
import { isShape } from '../document/schema.ts';
import { UsageError } from '../errors.ts';
import { isSomebodyThere, readSecret, readWhole } from './ask.ts';
import { printable } from './printable.ts';

/** What every command may have; a field of that name goes by `--body.json` or `--query.json`. */
const reserved = ['json', 'all', 'output', 'yes', 'body', 'if-match', 'idempotency-key', 'help', 'version'];

/** An option of a command, and what the person gave with it. */
export interface GivenOption {
  field: Field;
  in: 'query' | 'body';
  /** With the dashes. */
  flag: string;
  texts: string[];
  isNull: boolean;
}

/** What the person gave, filled while the command line is parsed. */
export interface GivenOptions {
  fields: GivenOption[];
}

export function addFieldOptions(command: Command, operation: Operation): GivenOptions {
  const taken = new Set(reserved);
  const add = (field: Field, where: GivenOption['in']): GivenOption => {
    const name = field.path.map(kebab).join('.');
    const free = taken.has(name) ? `${where}.${name}` : name;
    taken.add(free);
    const given: GivenOption = {
      field,
      in: where,
      flag: `--${free}${field.secret ? '-file' : ''}`,
      texts: [],
      isNull: false,
    };
    declare(command, given);
    return given;
  };
  const query = operation.inQuery.map(({ name, required, description, schema }) => ({
    ...fieldOf(schema, [name], required),
    ...(description !== '' && { description }),
    secret: false,
  }));
  const body = operation.body ? fieldsOf(operation.body) : [];
  return { fields: [...query.map((field) => add(field, 'query')), ...body.map((field) => add(field, 'body'))] };
}

function declare(command: Command, given: GivenOption): void {
  const { field, flag } = given;
  // Of an object that is taken apart the parts are shown; whole it can be given all the same.
  const option = new Option(`${flag} ${placeOf(field)}`, describe(given)).hideHelp(field.isTakenApart);
  listen(command, option, (text) => given.texts.push(text));
  if (field.nullable && !field.secret && given.in === 'body')
    listen(command, new Option(`--no-${flag.slice(2)}`, `${field.path.join('.')}: null`).hideHelp(), () => {
      given.isNull = true;
    });
  // As the API spells it, for whoever comes from its document.
  const spelled = `--${field.path.join('.')}${field.secret ? '-file' : ''}`;
  if (spelled !== flag && !reserved.includes(spelled.slice(2)) && !command.options.some(({ long }) => long === spelled))
    listen(command, new Option(`${spelled} ${placeOf(field)}`).hideHelp(), (text) => given.texts.push(text));
}

function listen(command: Command, option: Option, told: (text: string) => void): void {
  command.addOption(option);
  command.on(`option:${option.name()}`, told);
}

function placeOf({ kind, secret, item, path }: Field): string {
  if (secret) return '<file>';
  const name = kebab(path.at(-1)!);
  const words: Record<Field['kind'], string> = {
    text: name,
    integer: 'number',
    number: 'number',
    boolean: 'true|false',
    choice: name,
    list: item?.kind === 'integer' || item?.kind === 'number' ? 'number' : name,
    object: 'json',
    any: 'value',
  };
  return `<${words[kind]}>`;
}

function describe({ field, in: where }: GivenOption): string {
  const notes = [
    field.required ? 'needed' : '',
    field.choices.length > 0 ? `one of: ${field.choices.join(', ')}` : '',
    field.item?.choices.length ? `of: ${field.item.choices.join(', ')}` : '',
    field.kind === 'list' ? 'may be given several times' : '',
    field.kind === 'object' ? 'JSON' : '',
    field.default !== undefined && field.kind !== 'object' ? `default: ${JSON.stringify(field.default)}` : '',
    field.secret ? "read from a file, '-': stdin" : '',
    where === 'body' ? howToSayNone(field) : '',
  ].filter((each) => each !== '');
  return printable([field.description, notes.length > 0 ? `(${notes.join('; ')})` : ''].filter(Boolean).join(' '));
}

/** A text may be the word null; of everything else, null is none. */
function howToSayNone({ nullable, secret, kind, path, description }: Field): string {
  if (!nullable || secret) return '';
  if (kind === 'text') return `none: --no-${path.map(kebab).join('.')}`;
  return description.includes('null') ? '' : 'or null';
}

/** @throws UsageError for what is missing, given twice, or cannot be */
export function readQuery({ fields }: GivenOptions): URLSearchParams {
  const query = new URLSearchParams();
  const inQuery = fields.filter(({ in: where }) => where === 'query');
  refuseMissing(inQuery.filter(({ field, texts }) => field.required && texts.length === 0));
  for (const { field, flag, texts } of inQuery) {
    refuseRepeated(field, flag, texts);
    for (const text of texts) {
      readValue(field, text, flag);
      query.append(field.path[0]!, text);
    }
  }
  return query;
}

/**
 * The body: of `--body`, with what the options say put over it. undefined: the operation takes none.
 * @throws UsageError for what is missing, given twice, or cannot be
 */
export async function readBody(
  operation: Operation,
  { fields }: GivenOptions,
  bodyOption: string | undefined,
): Promise<unknown> {
  if (!operation.body) return undefined;
  const inBody = fields.filter(({ in: where }) => where === 'body');
  const given = inBody.filter(({ texts, isNull }) => texts.length > 0 || isNull);
  const whole = bodyOption === undefined ? {} : readBodyOption(bodyOption);
  if (given.length === 0 && bodyOption !== undefined) return whole;
  if (bodyOption === undefined && !isShape(operation.body)) throw new UsageError("--body is missing: '{...}' or @FILE");
  if (typeof whole !== 'object' || whole === null || Array.isArray(whole))
    throw new UsageError('--body has to be a JSON object when other options say parts of it');
  const body = { ...whole } as Record<string, unknown>;
  const secrets = await readSecrets(inBody, body);
  for (const each of given) if (!each.field.secret) put(body, each.field.path, givenValue(each));
  for (const [{ field }, secret] of secrets) put(body, field.path, secret);
  refuseMissing(inBody.filter(({ field }) => field.required && !Object.hasOwn(body, field.path[0]!)));
  return body;
}

function givenValue({ field, flag, texts, isNull }: GivenOption): unknown {
  if (isNull && texts.length > 0) throw new UsageError(`${flag} is given, and as none as well`);
  if (isNull) return null;
  refuseRepeated(field, flag, texts);
  // So that a list can be empty, too, or none.
  const isWhole = texts[0]!.startsWith('[') || (field.nullable && texts.length === 1 && texts[0] === 'null');
  if (field.kind === 'list' && isWhole) return readValue({ ...field, kind: 'any' }, texts[0]!, flag);
  const values = texts.map((text) => readValue(field, text, flag));
  return field.kind === 'list' ? values : values[0];
}

/** From the files that were named; one that is needed and was not is asked for, where somebody is there to ask. */
async function readSecrets(fields: readonly GivenOption[], body: object): Promise<Map<GivenOption, string>> {
  const secrets = new Map<GivenOption, string>();
  for (const given of fields.filter(({ field }) => field.secret)) {
    const { field, flag, texts } = given;
    refuseRepeated(field, flag, texts);
    const isAsked = field.required && !Object.hasOwn(body, field.path[0]!) && isSomebodyThere();
    if (texts.length > 0 || isAsked) secrets.set(given, await readSecret(field.path.join('.'), texts[0], flag));
  }
  return secrets;
}

function readBodyOption(text: string): unknown {
  const file = /^@(.+)$/s.exec(text)?.[1];
  const json = file === undefined ? text : readWhole(file);
  try {
    return JSON.parse(json) as unknown;
  } catch (cause) {
    throw new UsageError(`${file ?? '--body'} holds no JSON: ${(cause as Error).message}`, { cause });
  }
}

function refuseMissing(missing: readonly GivenOption[]): void {
  if (missing.length > 0) throw new UsageError(`missing: ${missing.map(({ flag }) => flag).join(', ')}   (see --help)`);
}

function refuseRepeated({ kind }: Field, flag: string, texts: readonly string[]): void {
  if (texts.length > 1 && kind !== 'list') throw new UsageError(`${flag} is given ${texts.length} times`);
}
