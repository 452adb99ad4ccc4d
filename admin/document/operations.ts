/** The server's OpenAPI document, as what can be asked of it. */
import { NotAServer } from '../errors.ts';
import type { Schema } from './schema.ts';

export interface Parameter {
  name: string;
  required: boolean;
  description: string;
  schema: Schema;
}

export interface Operation {
  /** Upper case. */
  method: string;
  /** With parameters, as in `/v1/users/{user}`. */
  path: string;
  summary: string;
  /** What happens, and who may. */
  description: string;
  /** In the order of the path. */
  inPath: Parameter[];
  inQuery: Parameter[];
  body: Schema | null;
  /** It takes an Idempotency-Key and an If-Match, so it can be sent again without being done twice. */
  isChange: boolean;
  /** Nobody has to be signed in. */
  isOpen: boolean;
  /** Of the answer when it is done. Lines and other text are streamed. */
  answer: { type: string; schema: Schema };
}

interface DocumentOperation {
  summary?: string;
  description?: string;
  parameters?: { name: string; in: string; required?: boolean; description?: string; schema?: Schema }[];
  security?: unknown[];
  requestBody?: { content?: Record<string, { schema?: Schema }> };
  responses?: Record<string, { content?: Record<string, { schema?: Schema }> }>;
}

const methods = ['get', 'post', 'put', 'patch', 'delete'];

/** @throws NotAServer when it is no such document */
export function operationsOf(document: unknown): Operation[] {
  const { openapi, paths } = (document ?? {}) as { openapi?: unknown; paths?: Record<string, object> };
  if (typeof openapi !== 'string' || !openapi.startsWith('3.') || typeof paths !== 'object' || paths === null)
    throw new NotAServer('what the server answered is no description of an API (OpenAPI 3)');
  return Object.entries(paths).flatMap(([path, item]) =>
    Object.entries(item)
      .filter(([method]) => methods.includes(method))
      .map(([method, operation]) => readOperation(method.toUpperCase(), path, operation as DocumentOperation)),
  );
}

function readOperation(method: string, path: string, operation: DocumentOperation): Operation {
  const parameters = operation.parameters ?? [];
  const of = (where: string): Parameter[] =>
    parameters
      .filter((parameter) => parameter.in === where)
      .map(({ name, required = false, description = '', schema = {} }) => ({ name, required, description, schema }));
  const inPath = of('path');
  const headers = of('header').map(({ name }) => name.toLowerCase());
  return {
    method,
    path,
    summary: operation.summary ?? '',
    description: operation.description ?? '',
    // The path decides: one that the document does not describe is needed all the same.
    inPath: parametersIn(path).map(
      (name) => inPath.find((each) => each.name === name) ?? { name, required: true, description: '', schema: {} },
    ),
    inQuery: of('query'),
    body: operation.requestBody?.content?.['application/json']?.schema ?? null,
    isChange: headers.includes('idempotency-key') || headers.includes('if-match'),
    isOpen: operation.security?.length === 0,
    answer: answerOf(operation),
  };
}

function answerOf({ responses = {} }: DocumentOperation): Operation['answer'] {
  const done = Object.entries(responses).find(([status]) => status.startsWith('2'))?.[1];
  const [type = 'application/json', { schema = {} } = {}] = Object.entries(done?.content ?? {})[0] ?? [];
  return { type, schema };
}

export function parametersIn(path: string): string[] {
  return [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name!);
}

/** It answers line by line, for what may be long: as JSON, or as another text. */
export function isStream({ answer }: Operation): boolean {
  return answer.type !== 'application/json';
}

/**
 * Where the answer holds the many things that were asked for: `items`, or, where there is a `limit` in query or body, its
 * one list of objects. null: it is about one thing.
 */
export function listIn(operation: Operation): string | null {
  const { properties = {} } = operation.answer.schema;
  if (isStream(operation)) return null;
  if (properties.items !== undefined) return 'items';
  const hasLimit = operation.inQuery.some(({ name }) => name === 'limit') || operation.body?.properties?.limit;
  if (!hasLimit) return null;
  const lists = Object.entries(properties).filter(
    ([, { type, items }]) => type === 'array' && items?.type === 'object',
  );
  return lists.length === 1 ? lists[0]![0] : null;
}

export function isPage(operation: Operation): boolean {
  return listIn(operation) !== null;
}

/** A page that may have another after it. */
export function hasNextPage(operation: Operation): boolean {
  const hasAfter = operation.inQuery.some(({ name }) => name === 'after');
  return isPage(operation) && hasAfter && operation.answer.schema.properties?.next !== undefined;
}
