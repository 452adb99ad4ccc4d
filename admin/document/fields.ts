/**
 * What a person gives on the command line for a schema: one field per value, objects taken apart by dots, and the value
 * that a text stands for. Passwords and other secrets are fields too, which take no text from a command line.
 */
import { UsageError } from '../errors.ts';
import { isShape, propertiesOf, type Schema, variantsOf, withoutNull } from './schema.ts';

export type Kind = 'text' | 'integer' | 'number' | 'boolean' | 'choice' | 'list' | 'object' | 'any';

export interface Field {
  /** From the body's top; one name for a query. */
  path: string[];
  kind: Kind;
  /** Of each of a list. */
  item: Field | null;
  choices: string[];
  nullable: boolean;
  /** Asked for at the top: inside of objects the server says what is missing. */
  required: boolean;
  description: string;
  default: unknown;
  /** What a text has to look like, in words too; null: nobody says. */
  form: { pattern: RegExp; says: string } | null;
  /** It, or what it is inside of, may be left out; if none is, it is needed. For the examples of a command. */
  needed: boolean;
  /** A text or number it could be; null: nobody says. */
  example: string | null;
  /** Read from a file, stdin or a person, never from the command line, which others can see. */
  secret: boolean;
  /** An object whose properties are fields, too. */
  isTakenApart: boolean;
}

/** Objects in objects are taken apart so far; deeper ones are given as JSON. */
const depthMax = 4;
const secretName = /password|secret|token$/i;

/** The fields of a body; none when it is no object of known properties. */
export function fieldsOf(body: Schema, path: string[] = [], isNeeded = true): Field[] {
  const { properties, required } = propertiesOf(body);
  return Object.entries(properties).flatMap(([name, given]) => {
    const at = [...path, name];
    const { schema } = withoutNull(given);
    const needed = isNeeded && required.has(name);
    const field = { ...fieldOf(given, at, path.length === 0 && needed), needed };
    const isTakenApart = field.kind === 'object' && isShape(schema) && at.length < depthMax;
    return isTakenApart ? [{ ...field, isTakenApart }, ...fieldsOf(schema, at, needed)] : [field];
  });
}

export function fieldOf(given: Schema, path: string[], required: boolean): Field {
  const { schema, nullable } = withoutNull(given);
  const kind = kindOf(schema);
  const isText = kind === 'text';
  const isJsonList = kind === 'any' && schema.type === 'array';
  const name = path.at(-1)!;
  return {
    path,
    kind,
    item: kind === 'list' ? fieldOf(schema.items ?? {}, path, false) : null,
    choices: kind === 'choice' ? choicesOf(schema)! : [],
    nullable,
    required,
    description: given.description ?? schema.description ?? '',
    default: schema.default,
    form: isText ? formOf(schema, name) : null,
    needed: required,
    example: exampleOf(given, name) ?? exampleOf(schema, name) ?? (isJsonList ? '[...]' : null),
    isTakenApart: false,
    secret: isText && (schema.writeOnly === true || schema.format === 'password' || secretName.test(name)),
  };
}

/** A pattern alone says little to a person: only one with an example is held against what they give. */
function formOf(schema: Schema, name: string): Field['form'] {
  const example = exampleOf(schema, name);
  if (schema.pattern === undefined || example === null) return null;
  const isMoment = schema.format === 'date-time';
  const what = isMoment ? 'a moment with its time zone' : /^\d+$/.test(example) ? 'a number' : 'something';
  try {
    return { pattern: new RegExp(schema.pattern, 'u'), says: `${what} such as ${example}` };
  } catch {
    return null; // of a server that writes them otherwise: it will say what is wrong
  }
}

/** What is said to be one, or else one that is within bounds: an example that is refused helps nobody. */
function exampleOf({ type, examples = [], format, default: usual, minimum, exclusiveMinimum }: Schema, name: string) {
  const [example] = examples.flat();
  if (typeof example === 'string') return example;
  if (typeof example === 'number') return String(example);
  // Behind the moment that it goes with.
  if (format === 'date-time') return name === 'until' ? '2026-04-01T00:00:00Z' : '2026-03-01T14:30:00Z';
  if (type !== 'integer' && type !== 'number') return null;
  if (typeof usual === 'number') return String(usual);
  return String(Math.max(3, Math.ceil(minimum ?? 3), Math.floor(exclusiveMinimum ?? 2) + 1));
}

function kindOf(schema: Schema): Kind {
  if (choicesOf(schema)) return 'choice';
  switch (schema.type) {
    case 'string':
      return 'text';
    case 'integer':
    case 'number':
    case 'boolean':
      return schema.type;
    case 'array':
      return isScalar(schema.items ?? {}) ? 'list' : 'any';
    case 'object':
      return 'object';
  }
  return isShape(schema) ? 'object' : 'any';
}

const isScalar = (schema: Schema): boolean => {
  const { schema: bare, nullable } = withoutNull(schema);
  return !nullable && ['text', 'integer', 'number', 'boolean', 'choice'].includes(kindOf(bare));
};

/** The texts it may be; null when it may be others. */
function choicesOf(schema: Schema): string[] | null {
  const isText = (value: unknown): value is string => typeof value === 'string';
  if (schema.enum?.every(isText)) return schema.enum as string[];
  if (isText(schema.const)) return [schema.const];
  const variants = variantsOf(schema).map(choicesOf);
  return variants.length > 0 && variants.every((each) => each !== null) ? variants.flat() : null;
}

/**
 * The value that a text stands for. @param said how the person named it, for the message
 * @throws UsageError naming what it takes
 */
export function readValue(field: Field, text: string, said: string): unknown {
  const refuse = (takes: string): UsageError => new UsageError(`${said} takes ${takes}, not ${JSON.stringify(text)}`);
  if (text === 'null' && field.nullable && field.kind !== 'text') return null;
  switch (field.kind) {
    case 'text':
      if (field.form && !field.form.pattern.test(text)) throw refuse(field.form.says);
      return text;
    case 'integer':
      if (!/^-?\d+$/.test(text) || !Number.isSafeInteger(Number(text))) throw refuse('a whole number');
      return Number(text);
    case 'number':
      if (text.trim() === '' || !Number.isFinite(Number(text))) throw refuse('a number');
      return Number(text);
    case 'boolean':
      if (text !== 'true' && text !== 'false') throw refuse('true or false');
      return text === 'true';
    case 'choice':
      if (!field.choices.includes(text)) throw refuse(`one of ${field.choices.join(', ')}`);
      return text;
    case 'list':
      return readValue(field.item!, text, said);
    case 'object':
      return readObject(text, refuse);
    case 'any':
      return readAny(text, refuse);
  }
}

function readObject(text: string, refuse: (takes: string) => UsageError): object {
  const value = parse(text);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw refuse('a JSON object');
  return value;
}

/** JSON where it is JSON, else the text itself: `5`, `true`, `null`, `[1]`, and `weekly`. */
function readAny(text: string, refuse: (takes: string) => UsageError): unknown {
  const value = parse(text);
  if (value !== undefined) return value;
  // What was meant to be JSON is not taken for a word.
  if (/^\s*[[{"]/.test(text)) throw refuse('JSON or a word');
  return text;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/** Puts a value at its place in a body, making the objects on the way. */
export function put(body: Record<string, unknown>, path: readonly string[], value: unknown): void {
  let at = body;
  for (const name of path.slice(0, -1)) {
    const below = Object.hasOwn(at, name) ? at[name] : undefined;
    const next = typeof below === 'object' && below !== null && !Array.isArray(below) ? { ...below } : {};
    at[name] = next;
    at = next as Record<string, unknown>;
  }
  at[path.at(-1)!] = value;
}
