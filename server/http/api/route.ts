/**
 * What a route of the JSON API is made of: one object says its path, who may, what goes in and out, and the verb it calls.
 * Validation, the OpenAPI document, the page of roles and the tests that walk every route are made from these objects, so
 * that none of them can say something else than what is served.
 *
 * What must stay true: `may` is not optional. A route that does not say who may is a type error.
 */
import type { z } from 'zod';
import type { Database, Transaction } from '../../../storage/catalog/database.ts';
import type { By } from '../../directory/audit/act.ts';
import type { Actor, Target } from '../../directory/roles/may.ts';
import type { Permission } from '../../directory/roles/permissions.ts';
import type { FoundTarget } from '../../directory/targets.ts';
import type { Within } from '../../directory/users/pages.ts';
import type { ByteRange } from '../byte-range.ts';
import type { AppDeps, Context } from '../deps.ts';
import type { Caller } from './callers.ts';

/** A request that may: everything a handler works with. */
export interface Request<Params, Query, Body, Found> {
  ctx: Context;
  deps: AppDeps;
  caller: Caller;
  by: By;
  params: Params;
  query: Query;
  body: Body;
  /** What the path names, found within the caller's tenant. */
  target: Found;
  /** For listings: what to show of. */
  within: Within;
  /** The version the caller has seen (If-Match); null: not said. */
  expected: number | null;
}

export interface Asking<Params, Query, Body> {
  actor: Actor;
  params: Params;
  query: Query;
  body: Body;
}

/** How a route finds what it is about; null: there is no such thing, and whether there is is nobody's business. */
export type Finder<Params, Query, Body, Found extends Target> = (
  db: Transaction,
  asking: Asking<Params, Query, Body>,
) => Promise<Found | null>;

/**
 * Who may:
 * a permission, asked about what `target` finds; `or` (each of them) suffices as well, for what the verb then bounds more closely;
 * `second` (each of them) is asked too, about something else (where a user is moved to), or for what only some requests ask (`when`);
 * a permission `of: 'listing'`, whose answer shows what the caller reaches and nothing else; with `or`, by the widest of them;
 * `signedIn`: whoever is signed in, about themselves alone; `even` also those with a limited session;
 * `operator`: those who run the server; `anyone`: no sign-in, and why that is right.
 */
export type May<Params, Query, Body, Found extends Target> =
  | {
      permission: Permission;
      or?: Permission | readonly Permission[];
      target: Finder<Params, Query, Body, Found>;
      second?: Second<Params, Query, Body> | readonly Second<Params, Query, Body>[];
    }
  | { permission: Permission; or?: Permission | readonly Permission[]; of: 'listing' }
  | { signedIn: true; even?: 'limited'; kinds?: readonly Caller['kind'][] }
  | { operator: true }
  | { anyone: string };

/** A permission that is asked for beside another. */
export interface Second<Params, Query, Body> {
  permission: Permission;
  target: Finder<Params, Query, Body, Target>;
  /** Left out: always. */
  when?: (db: Transaction, asking: Asking<Params, Query, Body>) => Promise<boolean>;
}

/** Those that a route asks for beside its first. */
export function secondsOf<Params, Query, Body>({
  second = [],
}: {
  second?: Second<Params, Query, Body> | readonly Second<Params, Query, Body>[];
}) {
  return 'permission' in second ? [second] : second;
}

/** The permissions of which one is enough. */
export function sufficing({
  permission,
  or = [],
}: {
  permission: Permission;
  or?: Permission | readonly Permission[];
}) {
  return [permission, ...(typeof or === 'string' ? [or] : or)];
}

interface Common<Params extends z.ZodObject, Query extends z.ZodObject, Body extends z.ZodType, Found extends Target> {
  path: string;
  tag: string;
  summary: string;
  /** More for the document: what happens, what does not. */
  says?: string;
  may: May<z.output<Params>, z.output<Query>, z.output<Body>, Found>;
  params?: Params;
  query?: Query;
}

export interface ReadRoute<
  Params extends z.ZodObject = z.ZodObject,
  Query extends z.ZodObject = z.ZodObject,
  Found extends Target = FoundTarget,
> extends Common<Params, Query, z.ZodUndefined, Found> {
  kind: 'read';
  method: 'GET';
  answer: z.ZodType;
  read(request: Request<z.output<Params>, z.output<Query>, undefined, Found>): Promise<unknown>;
}

export interface LinesRoute<
  Params extends z.ZodObject = z.ZodObject,
  Query extends z.ZodObject = z.ZodObject,
  Body extends z.ZodType = z.ZodType,
  Found extends Target = FoundTarget,
> extends Common<Params, Query, Body, Found> {
  kind: 'lines';
  /** POST: a question too long for a query; it changes nothing. */
  method: 'GET' | 'POST';
  body?: Body;
  bodyBytesMax?: number;
  /** Of each line; text in another format when `type` says so. */
  answer: z.ZodType;
  type?: (query: z.output<Query>) => string;
  lines(request: Request<z.output<Params>, z.output<Query>, z.output<Body>, Found>): AsyncIterable<object | string>;
}

/** Bytes for a file: made while they are sent, or there already. */
export type Content = MadeContent | KeptContent;

interface NamedContent {
  type: string;
  /** As it is offered to whoever saves it; any text. */
  fileName: string;
}

export interface MadeContent extends NamedContent {
  /** Nothing is begun before the first of them is asked for. */
  bytes: AsyncIterable<Uint8Array>;
}

/** The same bytes however often they are asked for, in any ranges. */
export interface KeptContent extends NamedContent {
  /** Strong. */
  etag: string;
  length: number;
  read(range: ByteRange): AsyncIterable<Uint8Array>;
}

/** One that lasts, and may have to be stopped: its handler can ask again whether it may. */
export interface ContentRequest<Params, Query, Body, Found> extends Request<Params, Query, Body, Found> {
  /**
   * Who the caller is by now, who still may what the route asks for.
   * @throws Problem when they are signed out, or may not any more
   */
  askAgain(): Promise<Actor>;
}

export interface ContentRoute<
  Params extends z.ZodObject = z.ZodObject,
  Query extends z.ZodObject = z.ZodObject,
  Body extends z.ZodType = z.ZodType,
  Found extends Target = FoundTarget,
> extends Common<Params, Query, Body, Found> {
  kind: 'content';
  /** POST: its body is JSON, or what a browser's form sends, with the access token as `access_token` (RFC 6750, 2.2). */
  method: 'GET' | 'POST';
  body?: Body;
  bodyBytesMax?: number;
  /** The media types it answers with. */
  types: readonly string[];
  /**
   * Who comes with a link instead of a sign-in, who may then no more than they may by now; null: it is none.
   * @throws Problem not_found, whatever is wrong with it
   */
  byLink?(ctx: Context, asked: { params: z.output<Params>; query: z.output<Query> }): Promise<Caller | null>;
  content(request: ContentRequest<z.output<Params>, z.output<Query>, z.output<Body>, Found>): Promise<Content>;
}

export interface ChangeRoute<
  Params extends z.ZodObject = z.ZodObject,
  Query extends z.ZodObject = z.ZodObject,
  Body extends z.ZodType = z.ZodType,
  Found extends Target = FoundTarget,
  Prepared = unknown,
> extends Common<Params, Query, Body, Found> {
  kind: 'change';
  method: 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  body?: Body;
  bodyBytesMax?: number;
  /** 200 unless it says otherwise. */
  status?: 200 | 201;
  answer: z.ZodType;
  /** Whoever may do this may see all that it answers, whatever else they may not see of what it is about. */
  answersWhole?: true;
  /** What is drawn at random or takes long: before the transaction, once, whatever becomes of the COMMIT. */
  prepare?(request: Request<z.output<Params>, z.output<Query>, z.output<Body>, Found>): Promise<Prepared>;
  /** In the transaction, which may be repeated. Answers what is stored and told: nothing secret. */
  change(
    tx: Transaction,
    request: Request<z.output<Params>, z.output<Query>, z.output<Body>, Found>,
    prepared: Prepared,
  ): Promise<unknown>;
  /** Adds what is shown once, and never stored. Not called for a repeated request. */
  reveal?(answer: unknown, prepared: Prepared): unknown;
}

/**
 * Its own transactions, for what is no change by one whose state can be asked before: signing in, where a wrong attempt has
 * to be written down although it is refused.
 */
export interface ActRoute<
  Query extends z.ZodObject = z.ZodObject,
  Body extends z.ZodType = z.ZodType,
  Params extends z.ZodObject = z.ZodObject,
> extends Common<Params, Query, Body, never> {
  kind: 'act';
  method: 'POST' | 'DELETE' | 'GET';
  body?: Body;
  bodyBytesMax?: number;
  status?: 200 | 201;
  answer: z.ZodType;
  act(
    request: Omit<Request<z.output<Params>, z.output<Query>, z.output<Body>, never>, 'target' | 'caller' | 'by'> & {
      address: string;
      caller: Caller | null;
      database: Database;
    },
  ): Promise<unknown>;
}

// biome-ignore lint/suspicious/noExplicitAny: a table holds routes of every shape; each was checked where it was made
type Any = any;

export type ApiRoute =
  | ReadRoute<Any, Any, Any>
  | LinesRoute<Any, Any, Any, Any>
  | ContentRoute<Any, Any, Any, Any>
  | ChangeRoute<Any, Any, Any, Any, Any>
  | ActRoute<Any, Any, Any>;

/** Makes a route that only reads. */
export function read<Params extends z.ZodObject, Query extends z.ZodObject, Found extends Target = FoundTarget>(
  route: Omit<ReadRoute<Params, Query, Found>, 'kind' | 'method'>,
): ApiRoute {
  return { ...route, kind: 'read', method: 'GET' };
}

/** Makes a route that answers line by line, for what may be long. */
export function lines<
  Params extends z.ZodObject,
  Query extends z.ZodObject,
  Body extends z.ZodType = z.ZodUndefined,
  Found extends Target = FoundTarget,
>(route: Omit<LinesRoute<Params, Query, Body, Found>, 'kind'>): ApiRoute {
  return { ...route, kind: 'lines' };
}

/** Makes a route that answers with bytes. */
export function content<
  Params extends z.ZodObject,
  Query extends z.ZodObject,
  Body extends z.ZodType = z.ZodUndefined,
  Found extends Target = FoundTarget,
>(route: Omit<ContentRoute<Params, Query, Body, Found>, 'kind'>): ApiRoute {
  return { ...route, kind: 'content' };
}

/** Makes a route that changes something, in one transaction. */
export function change<
  Params extends z.ZodObject,
  Query extends z.ZodObject,
  Body extends z.ZodType = z.ZodUndefined,
  Found extends Target = FoundTarget,
  Prepared = undefined,
>(route: Omit<ChangeRoute<Params, Query, Body, Found, Prepared>, 'kind'>): ApiRoute {
  return { ...route, kind: 'change' };
}

/** Makes a route with transactions of its own. */
export function act<
  Query extends z.ZodObject,
  Body extends z.ZodType = z.ZodUndefined,
  Params extends z.ZodObject = z.ZodObject,
>(route: Omit<ActRoute<Query, Body, Params>, 'kind'>): ApiRoute {
  return { ...route, kind: 'act' };
}

/**
 * Makes routes that put one thing into another state: a POST without a body, by the word that ends its path.
 * @param about what the verbs are told of a request
 */
export function stateRoutes<Params extends z.ZodObject, Found extends Target, About>(
  thing: {
    path: string;
    tag: string;
    params: Params;
    target: Finder<z.output<Params>, Any, Any, Found>;
    answer: z.ZodType;
  },
  about: (request: { target: Found; expected: number | null }) => About,
) {
  return (
    state: string,
    permission: Permission,
    verb: (tx: Transaction, by: By, about: About) => Promise<unknown>,
    words: { summary: string; says: string },
  ): ApiRoute =>
    change({
      method: 'POST',
      path: `${thing.path}/${state}`,
      tag: thing.tag,
      ...words,
      may: { permission, target: thing.target },
      params: thing.params,
      answer: thing.answer,
      change: (tx, request) => verb(tx, request.by, about(request)),
    });
}
