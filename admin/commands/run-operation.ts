/** Asks one operation of the server and says the answer: a table, a thing's values, JSON, or a stream passed on. */
import { randomUUID } from 'node:crypto';
import { type Answer, type Asked, collect } from '../client/connection.ts';
import { hasNextPage, isPage, isStream, listIn, type Operation } from '../document/operations.ts';
import type { Schema } from '../document/schema.ts';
import { NotAServer, NotAsAsked, UsageError } from '../errors.ts';
import { saidOfOptions } from './at-fault.ts';
import { confirmDanger, filled, isDangerous } from './dangerous.ts';
import { neighbourWith } from './neighbour.ts';
import { type GivenOptions, readBody, readQuery } from './options.ts';
import { note, say, sayJson, sayJsonLine, terminalWidth, withOutcome } from './output.ts';
import { ask, type Session } from './session.ts';
import { passOn } from './streams.ts';
import { detailLines, tableLines } from './table.ts';
import { type Verdict, verdictOn } from './verdicts.ts';

/** What every command may be told, whatever it asks. */
export interface CommonOptions {
  json?: boolean;
  all?: boolean;
  output?: string;
  yes?: boolean;
  body?: string;
  ifMatch?: string;
  idempotencyKey?: string;
}

export interface Invocation {
  operation: Operation;
  /** All of the server's. */
  operations: readonly Operation[];
  params: readonly string[];
  given: GivenOptions;
  common: CommonOptions;
}

/** Of an answer that is collected whole. */
const answerBytesMax = 64 * 1024 * 1024;

/** @throws UsageError before anything is sent; Problem, ConnectionLost, SignInNeeded; NotAsAsked by what was answered */
export async function runOperation(session: Session, invocation: Invocation): Promise<void> {
  const { operation, operations, params, given, common } = invocation;
  if (params.some((param) => param === '' || param === '.' || param === '..'))
    throw new UsageError('an argument is empty; each names one thing');
  const query = readQuery(given);
  const body = await readBody(operation, given, common.body);
  const key = operation.isChange ? (common.idempotencyKey ?? randomUUID()) : null;
  const isReading = operation.method === 'GET' || (isStream(operation) && !operation.isChange);
  const asked: Omit<Asked, 'path'> = {
    method: operation.method,
    headers: headersOf(common, key),
    body,
    repeatable: isReading || key !== null,
  };
  if (isDangerous(operation, body) && !common.yes)
    await confirmDanger(session, { operation, params, body }, operations);
  const send = (more: URLSearchParams): Promise<Answer> =>
    sendAsked(session, operation, { ...asked, path: pathOf(operation, params, more) }).catch((error: unknown) => {
      const neighbour = (field: string) =>
        neighbourWith(field, { operation, operations, params, output: common.output });
      const said = saidOfOptions(error, given.fields, {
        hasBody: common.body !== undefined,
        neighbourWith: neighbour,
      });
      throw withOutcome(said, { isReading, key });
    });

  if (isStream(operation)) return passOn(await send(query), common.output ?? null);
  if (common.all && hasNextPage(operation)) return sayAll(operation, query, send, common);
  const answer = await jsonOf(await send(query));
  const verdict = verdictOn(operation, { params, body }, answer);
  if (common.json) sayJson(answer);
  else sayAnswer(operation, answer, verdict);
  if (verdict?.isFailure) throw new NotAsAsked(verdict.says);
}

function sayAnswer(operation: Operation, answer: unknown, verdict: Verdict | null): void {
  if (!isPage(operation)) say(detailLines(answer));
  // A list that was refused is not one with nothing in it.
  else if (!verdict?.isFailure) sayPage(operation, readPage(operation, answer));
  if (verdict && !verdict.isFailure) note(verdict.says);
}

function headersOf({ ifMatch }: CommonOptions, key: string | null): Record<string, string> {
  if (ifMatch !== undefined && !/^[1-9]\d{0,14}$/.test(ifMatch))
    throw new UsageError('--if-match takes the `version` that the change is made from, a whole number');
  return {
    ...(key !== null && { 'idempotency-key': key }),
    ...(ifMatch !== undefined && { 'if-match': `"${ifMatch}"` }),
  };
}

function pathOf({ path }: Operation, params: readonly string[], query: URLSearchParams): string {
  const text = query.toString();
  return filled(path, params) + (text === '' ? '' : `?${text}`);
}

function sendAsked(session: Session, operation: Operation, asked: Asked): Promise<Answer> {
  return operation.isOpen ? session.connection.send(asked) : ask(session, asked);
}

async function jsonOf({ body }: Answer): Promise<unknown> {
  const text = (await collect(body, answerBytesMax)).toString('utf8');
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    throw new NotAServer('the server answered with what is no JSON', { cause });
  }
}

interface Page {
  items: unknown[];
  /** For `after`; null: this is the last one. */
  next: string | null;
  /** What the answer says beside its items. */
  rest: object;
}

function readPage(operation: Operation, answer: unknown): Page {
  const { [listIn(operation)!]: items, next, ...rest } = answer as Record<string, unknown>;
  if (!Array.isArray(items)) throw new NotAServer('the server answered with a page that holds no list');
  return { items, next: next === null || next === undefined ? null : String(next), rest };
}

const itemSchema = (operation: Operation): Schema =>
  operation.answer.schema.properties?.[listIn(operation)!]?.items ?? {};

function sayPage(operation: Operation, { items, next, rest }: Page): void {
  sayTable(operation, items);
  const { fault, ...about } = rest as { fault?: unknown };
  say(detailLines(fault === null ? about : rest));
  if (next !== null) note(`There is more: ${hasNextPage(operation) ? '--all, or ' : ''}--after ${next}`);
}

function sayTable(operation: Operation, items: readonly unknown[]): void {
  if (items.length === 0) {
    note('There is none.');
    return;
  }
  const { lines, leftOut } = tableLines(items, itemSchema(operation), terminalWidth());
  say(lines);
  if (leftOut.length > 0) note(`Left out for want of room: ${leftOut.join(', ')}. --json shows all.`);
}

/** So many at a time, when nobody says: a page is asked for in one statement of the server. */
const pageItems = 500;
/** For a table all have to be there, to know how wide it gets; lines for scripts are said as they come. */
const tableItemsMax = 100_000;

async function sayAll(
  operation: Operation,
  query: URLSearchParams,
  send: (query: URLSearchParams) => Promise<Answer>,
  { json }: CommonOptions,
): Promise<void> {
  const limit = operation.inQuery.find(({ name }) => name === 'limit')?.schema as { maximum?: number } | undefined;
  if (limit && !query.has('limit')) query.set('limit', String(Math.min(pageItems, limit.maximum ?? pageItems)));
  const items: unknown[] = [];
  let seen = 0;
  try {
    for (;;) {
      const page = readPage(operation, await jsonOf(await send(query)));
      seen += page.items.length;
      if (json) page.items.forEach(sayJsonLine);
      else items.push(...page.items);
      if (page.next === null) break;
      if (page.next === query.get('after')) throw new NotAServer('the server answers the same page again and again');
      if (!json && seen > tableItemsMax)
        throw new UsageError(`more than ${tableItemsMax} are too many for a table; add --json`);
      query.set('after', page.next);
      progress(`${seen} so far`);
    }
  } finally {
    progress(null);
  }
  if (!json) sayTable(operation, items);
}

/** One line that is drawn over itself, for a person. null: wipes it. */
function progress(line: string | null): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${line ?? ''}`);
}
