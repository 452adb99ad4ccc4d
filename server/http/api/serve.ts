/**
 * Serves the routes of the JSON API. Read from the top, it is what happens to a request: who asks, what they ask (path,
 * query, body, each refused with the field at fault), whether they may, and the verb. A change is one transaction: the
 * key of the request, the question whether it may, the change and its act; so it is made once, or not at all.
 */
import { randomUUID } from 'node:crypto';
import type Router from '@koa/router';
import { z } from 'zod';
import { sha256 } from '../../../protocol/hashes.ts';
import { Problem } from '../../../protocol/problems.ts';
import { validate } from '../../../protocol/wire.ts';
import type { By } from '../../directory/audit/act.ts';
import { recordAlone } from '../../directory/audit/record.ts';
import { findMade, type MadeRequest, madeOnce } from '../../directory/requests-made.ts';
import { blockFor } from '../../directory/restores/thresholds/blocking.ts';
import { ThresholdCrossed } from '../../directory/restores/thresholds/charging.ts';
import type { Target } from '../../directory/roles/may.ts';
import { streamed } from '../answers.ts';
import { form, formType, json } from '../bodies.ts';
import { refuseCleartext } from '../cleartext.ts';
import { addressOf } from '../client-address.ts';
import type { Context, RequestState } from '../deps.ts';
import { authenticate, authenticateAgain, byOf, type Caller, requesterOf } from './callers.ts';
import { sendContent } from './content-answers.ts';
import { authorize, isSeen, Refusal, withinOf } from './guard.ts';
import { answerJson, joinedLines, jsonLinesType } from './json-answers.ts';
import { type ApiRoute, type ChangeRoute, type ContentRoute, type Request, sufficing } from './route.ts';
import { withoutSecrets } from './secrets.ts';

const bodyBytesMaxDefault = 64 * 1024;
const idempotencyKeyShape = /^[\x21-\x7e]{1,100}$/;
const noQuery = z.strictObject({});

// biome-ignore lint/suspicious/noExplicitAny: each route's own shapes were checked where it was made
type AnyRequest = Request<any, any, any, any>;

export function serveApi(router: Router<RequestState>, routes: readonly ApiRoute[]): void {
  for (const route of routes) {
    const handle = handlerOf(route);
    const schema = 'body' in route ? route.body : undefined;
    const bytesMax = ('bodyBytesMax' in route && route.bodyBytesMax) || bodyBytesMaxDefault;
    const served = async (ctx: Context, caller: Caller | null, inForm?: FormBody) => {
      const release = await placeOf(ctx, caller);
      try {
        if (inForm) await handle(ctx, caller, inForm.body);
        else if (schema)
          await json(schema, bytesMax, (_, body, { giveBack }) => {
            // Kept as long as its reader likes; one for each of those places.
            if (route.kind === 'lines' || route.kind === 'content') giveBack();
            return handle(ctx, caller, body);
          })(ctx);
        else {
          refuseBody(ctx);
          await handle(ctx, caller, undefined);
        }
      } catch (error) {
        // Its transaction was given up, and what it found stands.
        if (error instanceof ThresholdCrossed) await blockFor(ctx.state.deps.directory.database, error);
        if (!(error instanceof Refusal)) throw error;
        await noteRefusal(ctx, caller, route, error);
        throw error.problem;
      } finally {
        release();
      }
    };
    const serve = async (ctx: Context) => served(ctx, (await linkedOf(ctx, route)) ?? (await callerOf(ctx, route)));
    const serveForm = route.kind === 'content' && route.body ? formServer(route, bytesMax, served) : serve;
    router.register(route.path, [route.method], (ctx: Context) => (isForm(ctx) ? serveForm(ctx) : serve(ctx)));
  }
}

interface FormBody {
  body: unknown;
}

const isForm = (ctx: Context): boolean => ctx.get('content-type').split(';')[0]!.trim().toLowerCase() === formType;

/**
 * A browser's form, which sends no Authorization: the token comes in it. So it is read before anybody knows whose it is,
 * in the place of a stranger's address.
 */
function formServer(
  route: ContentRoute,
  bytesMax: number,
  served: (ctx: Context, caller: Caller | null, inForm: FormBody) => Promise<void>,
): (ctx: Context) => Promise<void> {
  const fields = (route.body as unknown as z.ZodObject).extend({ access_token: z.string().max(1_000).optional() });
  return async (ctx) => {
    const release = await placeOf(ctx, null);
    let isRead = false;
    const leave = (): void => {
      if (!isRead) release();
      isRead = true;
    };
    try {
      await form(fields, bytesMax, async (_, { access_token: token, ...body }, { giveBack }) => {
        giveBack();
        leave();
        await served(ctx, await callerOf(ctx, route, token as string | undefined), { body });
      })(ctx);
    } finally {
      leave();
    }
  };
}

type Handle = (ctx: Context, caller: Caller | null, body: unknown) => Promise<void>;
/** What of a body may be kept. */
type Kept = (body: unknown) => unknown;

function handlerOf(route: ApiRoute): Handle {
  const kept: Kept = route.kind === 'change' && route.body ? withoutSecrets(route.body) : (given) => given;
  return async (ctx, caller, body) => {
    const params = parse(route.params ?? noQuery, { ...paramsOf(ctx) }, 'not_found');
    const query = parse(route.query ?? noQuery, queryOf(ctx), 'malformed_request');
    const { deps } = ctx.state;
    const { database } = deps.directory;
    if (route.kind === 'act') {
      const asked = { ctx, deps, params, query, body, within: { all: true as const }, expected: null };
      const answer = await route.act({ ...asked, caller, address: addressOf(ctx), database });
      // One that sends the browser elsewhere has answered.
      return ctx.status >= 300 && ctx.status < 400 ? undefined : send(ctx, answer, route.status);
    }
    const request: AnyRequest = {
      ctx,
      deps,
      caller: caller!,
      by: caller ? byOf(caller, addressOf(ctx)) : { ...nobody, address: addressOf(ctx) },
      params,
      query,
      body,
      target: null,
      within: withinFor(route, caller),
      // Of a file it is compared with what is sent.
      expected: route.kind === 'content' ? null : expectedOf(ctx),
    };
    if (route.kind === 'change') return makeChange(route, request, kept);
    request.target = await ask(route, request, database);
    if (route.kind === 'read') return send(ctx, await route.read(request));
    if (route.kind === 'content') return makeContent(route, request);
    const type = route.type?.(query) ?? jsonLinesType;
    const release = await deps.slots.versionStreams.take(requesterOf(caller, ctx), ctx.state.signal);
    try {
      await streamed(ctx, type, joinedLines(route.lines(request)));
    } finally {
      release();
    }
  };
}

async function makeContent(route: ContentRoute, request: AnyRequest): Promise<void> {
  const { ctx, deps, caller } = request;
  const askAgain = async () => {
    const now = await authenticateAgain(ctx, caller);
    if (now.limited) throw new Problem(now.limited, 'this session can only do what is still missing', {});
    try {
      await ask(route, { ...request, caller: now }, deps.directory.database);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      await noteRefusal(ctx, now, route, error);
      throw error.problem;
    }
    return now.actor!;
  };
  // Nothing is begun of it before its bytes are asked for, and then it has its place.
  const content = await route.content({ ...request, askAgain });
  const requester = requesterOf(caller, ctx);
  const { signal } = ctx.state;
  const isMade = 'bytes' in content;
  const release = await (isMade ? deps.slots.restores : deps.slots.downloads).take(requester, signal);
  try {
    // Last, so that who waits for a place of their own keeps none of their tenant's.
    const leave = isMade ? null : await deps.slots.tenantDownloads.take(`tenant ${caller.tenant}`, signal);
    try {
      await sendContent(ctx, content);
    } finally {
      leave?.();
    }
  } finally {
    release();
  }
}

const nobody: By = { tenant: null, party: { kind: 'server', id: null, name: 'nobody' }, address: null };

type Db = Parameters<typeof authorize>[0];

async function ask(route: ApiRoute, request: AnyRequest, db: Db): Promise<Target | null> {
  const { caller, params, query, body } = request;
  if (!('permission' in route.may)) return null;
  const { actor } = caller;
  if (!actor)
    throw new Refusal(new Problem('forbidden', 'this is for users of a tenant'), {
      permission: route.may.permission,
      why: 'operator',
    });
  return authorize(db, route.may, { actor, params, query, body });
}

async function makeChange(route: ChangeRoute, request: AnyRequest, kept: Kept): Promise<void> {
  const { ctx, deps, caller } = request;
  const { database } = deps.directory;
  const key = { ...keyOf(request, route, kept), requester: requesterOf(caller, ctx) };
  // Asked before anything slow is done, and again in the transaction, where it counts.
  try {
    request.target = await ask(route as ApiRoute, request, database);
  } catch (error) {
    // It may be refused because it was done: what it was about is gone, or was moved out of reach. Whoever did it is told
    // that they did, and no more of what they may not ask about now.
    const made = error instanceof Refusal ? await findMade(database, key) : null;
    if (!made) throw error;
    return sendMade(ctx, made, cut);
  }
  const asShown = (answer: unknown): unknown => (route.answersWhole ? answer : shownTo(request, answer));
  // Nothing slow is done again, and nobody asked again, for what was made.
  const before = key.isGiven ? await findMade(database, key) : null;
  if (before) return sendMade(ctx, before, asShown);
  let prepared: unknown;
  try {
    prepared = await route.prepare?.(request);
  } catch (error) {
    // It may be refused for what the same request has done meanwhile.
    const made = error instanceof Problem ? await findMade(database, key) : null;
    if (!made) throw error;
    return sendMade(ctx, made, asShown);
  }
  const attempt = randomUUID();
  const made = await database.transaction((tx) =>
    madeOnce(tx, key, async () => {
      request.target = await ask(route as ApiRoute, request, tx);
      return { status: route.status ?? 200, answer: { attempt, told: await route.change(tx, request, prepared) } };
    }),
  );
  const { attempt: by, told } = made.answer as StoredAnswer;
  if (by !== attempt) return sendMade(ctx, made, asShown);
  const shown = asShown(told);
  // What is shown once is for whoever made it.
  send(ctx, route.reveal ? route.reveal(shown, prepared) : shown, made.status);
}

interface StoredAnswer {
  /** Which request of them made it. */
  attempt: string;
  told: unknown;
}

/** Sends the answer of a request that was made before, as far as the caller may see it now. */
function sendMade(ctx: Context, { answer, status }: MadeRequest, shown: (told: unknown) => unknown): void {
  ctx.set('Idempotency-Replayed', 'true');
  send(ctx, shown((answer as StoredAnswer).told), status);
}

/** Whoever may change something and not see it is told no more than that it was changed. */
function shownTo({ caller, target }: AnyRequest, answer: unknown): unknown {
  return !target || !caller.actor || isSeen(caller.actor, target) ? answer : cut(answer);
}

function cut(answer: unknown): object {
  const all = Object.entries((answer ?? {}) as object);
  return Object.fromEntries(all.filter(([name]) => ['id', 'guid', 'version', 'deleted'].includes(name)));
}

/** One that the caller chose, or one drawn for this request, so that a COMMIT of unknown outcome is not made again. */
function keyOf(
  { ctx, params, query, body }: AnyRequest,
  route: ChangeRoute,
  kept: Kept,
): { key: string; isGiven: boolean; sha256: Buffer } {
  const given = ctx.get('idempotency-key');
  if (given !== '' && !idempotencyKeyShape.test(given))
    throw new Problem('malformed_request', 'Idempotency-Key is 1 to 100 visible ASCII characters', {
      field: 'idempotency-key',
    });
  const asked = { method: route.method, path: route.path, params, query, body: kept(body) ?? null };
  const key = given === '' ? `drawn ${randomUUID()}` : `given ${given}`;
  // As it was understood, so that spaces do not make another request of it. The hash is kept for a day, so nothing secret is in it.
  return { key, isGiven: given !== '', sha256: sha256(Buffer.from(JSON.stringify(asked))) };
}

function withinFor(route: ApiRoute, caller: Caller | null): AnyRequest['within'] {
  if (!('of' in route.may) || !caller?.actor) return { all: true };
  return withinOf(caller.actor, sufficing(route.may));
}

/** Who comes with a link. In a stranger's place, like whoever signs in. @throws Problem */
async function linkedOf(ctx: Context, route: ApiRoute): Promise<Caller | null> {
  if (route.kind !== 'content' || !route.byLink || ctx.querystring === '' || ctx.get('authorization') !== '')
    return null;
  refuseCleartext(ctx);
  const params = parse(route.params ?? noQuery, { ...paramsOf(ctx) }, 'not_found');
  const query = parse(route.query ?? noQuery, queryOf(ctx), 'malformed_request');
  const release = await placeOf(ctx, null);
  try {
    return await route.byLink(ctx, { params, query });
  } finally {
    release();
  }
}

/** Who asks; null where nobody has to say. @throws Problem, Refusal */
async function callerOf(ctx: Context, route: ApiRoute, inForm?: string): Promise<Caller | null> {
  if ('anyone' in route.may) return null;
  const caller = await authenticate(ctx, inForm);
  if (caller.limited && !('signedIn' in route.may && route.may.even === 'limited'))
    throw new Problem(caller.limited, 'this session can only do what is still missing', {});
  if ('operator' in route.may && caller.kind !== 'operator')
    throw new Problem('not_found', 'there is no such resource');
  if ('signedIn' in route.may && route.may.kinds && !route.may.kinds.includes(caller.kind))
    throw new Problem('forbidden', `this is for a ${route.may.kinds.join(' or ')}`);
  return caller;
}

/** A bounded number of requests at a time, of everybody who asks, and of an address whose asker is not known yet. */
function placeOf(ctx: Context, caller: Caller | null): Promise<() => void> {
  const { slots } = ctx.state.deps;
  if (!caller) return slots.signIns.take(addressOf(ctx), ctx.state.signal);
  return slots.requests.take(requesterOf(caller, ctx), ctx.state.signal);
}

async function noteRefusal(ctx: Context, caller: Caller | null, route: ApiRoute, refusal: Refusal): Promise<void> {
  if (!caller) return;
  const { target, permission, why } = refusal;
  const found = target as (Target & { kind?: string; id?: number | string; name?: string | null }) | null;
  const isOurs = found !== null && found.tenant === caller.actor?.tenant;
  await recordAlone(ctx.state.deps.directory.database, byOf(caller, addressOf(ctx)), {
    action: 'request.refused',
    target:
      isOurs && found.id !== undefined ? ({ kind: found.kind, id: found.id, name: found.name ?? null } as never) : null,
    organization: isOurs ? (found.organizationPath.at(-1) ?? null) : null,
    result: 'refused',
    details: { method: route.method, path: route.path, permission, why },
  });
}

function paramsOf(ctx: Context): Record<string, string> {
  return (ctx as unknown as { params: Record<string, string> }).params;
}

function queryOf(ctx: Context): Record<string, string> {
  const given: Record<string, string> = Object.create(null);
  for (const [name, value] of new URLSearchParams(ctx.querystring)) {
    if (name in given) throw new Problem('malformed_request', `${name} comes twice`, { field: name });
    given[name] = value;
  }
  return { ...given };
}

/** A path that cannot be one names nothing; a query that is none is said to be. */
function parse(schema: z.ZodType, value: object, otherwise: 'not_found' | 'malformed_request') {
  if (otherwise === 'malformed_request') return validate(schema, value);
  const parsed = schema.safeParse(value);
  if (!parsed.success) throw new Problem('not_found', 'there is no such thing here');
  return parsed.data;
}

/** If-Match: "7", as ETag was. */
function expectedOf(ctx: Context): number | null {
  const given = ctx.get('if-match');
  if (given === '' || given === '*') return null;
  const version = /^"([1-9]\d{0,14})"$/.exec(given)?.[1];
  if (!version) throw new Problem('malformed_request', 'If-Match is not an ETag of this server', { field: 'if-match' });
  return Number(version);
}

function refuseBody(ctx: Context): void {
  const length = ctx.get('content-length');
  if ((length !== '' && length !== '0') || ctx.get('transfer-encoding') !== '')
    throw new Problem('malformed_request', 'this request takes no body', { field: '(whole message)' });
}

function send(ctx: Context, answer: unknown, status = 200): void {
  const document = (answer ?? {}) as { version?: unknown };
  if (typeof document.version === 'number') ctx.set('ETag', `"${document.version}"`);
  answerJson(ctx, document, status);
}
