/** What the server can do, from its own description: fetched, or the copy of this folder while that is fresh enough. */
import type { IncomingMessage } from 'node:http';
import { type Operation, operationsOf } from '../document/operations.ts';
import { NotAServer } from '../errors.ts';
import { readStoredDocument, storeDocument } from '../state/stored-document.ts';
import { type Connection, collect } from './connection.ts';

const documentPath = '/v1/openapi.json';
/** A server is upgraded now and then; a command that the copy does not know is looked for anew at once. */
const freshMsMax = 3_600_000;

export interface ApiDescription {
  operations: Operation[];
  /** Just now, from the server: asking again tells nothing new. */
  isNew: boolean;
}

/**
 * @param anew also when the copy is fresh
 * @throws ConnectionLost and others when the server cannot be reached and there is no copy either
 */
export async function describeApi(
  connection: Connection,
  home: string,
  options: { anew: boolean; now: number },
): Promise<ApiDescription> {
  const stored = readStoredDocument(home, connection.origin);
  const ageMs = stored ? options.now - stored.fetchedAt : Number.POSITIVE_INFINITY;
  if (stored && !options.anew && ageMs >= 0 && ageMs < freshMsMax)
    return { operations: operationsOf(stored.document), isNew: false };
  // Whoever wants it anew does not believe the copy, whatever it says that it is of.
  const etag = options.anew ? null : (stored?.etag ?? null);
  const answer = await connection.send({
    method: 'GET',
    path: documentPath,
    headers: etag ? { 'if-none-match': etag } : {},
    repeatable: true,
    once: true,
  });
  if (answer.status === 304 && stored) {
    answer.body.resume();
    storeDocument(home, connection.origin, { ...stored, fetchedAt: options.now });
    return { operations: operationsOf(stored.document), isNew: true };
  }
  const document = await readDocument(answer.body, connection.origin);
  const operations = operationsOf(document);
  storeDocument(home, connection.origin, { fetchedAt: options.now, etag: answer.headers.etag ?? null, document });
  return { operations, isNew: true };
}

/** A few hundred routes of some KiB each. */
const documentBytesMax = 32 * 1024 * 1024;

async function readDocument(body: IncomingMessage, origin: string): Promise<unknown> {
  const bytes = await collect(body, documentBytesMax);
  try {
    return JSON.parse(bytes.toString('utf8')) as unknown;
  } catch (cause) {
    throw new NotAServer(`what ${origin} answered at ${documentPath} is no JSON: is it a Holdfast server?`, { cause });
  }
}

/** The copy of this folder, however old; null: there is none. */
export function describeFromCopy(origin: string, home: string): ApiDescription | null {
  const stored = readStoredDocument(home, origin);
  return stored && { operations: operationsOf(stored.document), isNew: false };
}
