/** Repositories of restic: made, shown, given tokens, and had back when their files were deleted (docs/restic.md). */
import { z } from 'zod';
import { createOwnRepository, createOwnToken } from '../../../directory/restic/own.ts';
import {
  createRepository,
  drawGuid,
  listRepositories,
  readRepository,
  repositoryPath,
} from '../../../directory/restic/repositories.ts';
import { newResticToken } from '../../../directory/restic/secrets.ts';
import {
  CreatedRepository,
  CreatedRepositoryWithSecret,
  CreateOwnRepositoryRequest,
  CreateOwnTokenRequest,
  CreateRepositoryRequest,
  CreateTokenRequest,
  HiddenPage,
  ListHiddenQuery,
  ListRepositoriesQuery,
  ListTokensQuery,
  RepositoryDetails,
  RepositoryPage,
  SetBack,
  SetBackQuery,
  SetBackRequest,
  TokenPage,
  TokenView,
  TokenWithSecret,
  Undeleted,
  UndeleteRequest,
} from '../../../directory/restic/shapes.ts';
import { createToken, listTokens, revokeToken } from '../../../directory/restic/tokens.ts';
import { listHidden, setBack, trySetBack, undelete } from '../../../directory/restic/undoing.ts';
import type { DeviceTarget } from '../../../directory/targets.ts';
import type { Context } from '../../deps.ts';
import { byOf, type Caller } from '../callers.ts';
import { deviceInPath, deviceParams, guidText, idText, userInPath, userParams } from '../finders.ts';
import { origin } from '../origin.ts';
import { type ApiRoute, act, change, read } from '../route.ts';

const tag = 'Repositories of restic';
const one = '/v1/repositories/:guid';

/** Whose they are: by what lets them restore from what is theirs. Whoever looks after devices: by what lets them change these. */
const see = { permission: 'computer.read', or: 'restore.personal', target: deviceInPath } as const;
const manage = { permission: 'computer.update', or: 'restore.personal', target: deviceInPath } as const;
const own = { signedIn: true, kinds: ['user'] } as const;

const once = 'The token is shown once: a repeated request is answered without it.';
const proof =
  'Being signed in is not enough: your password is asked for, and the code of your second factor if you have one; or a session that has just begun at your identity provider.';

const of = ({ target }: { target: DeviceTarget }) => ({ tenant: target.tenant, guid: target.id });
const asking = ({ by, target, caller }: { by: ReturnType<typeof byOf>; target: DeviceTarget; caller: Caller }) => ({
  by,
  target,
  user: caller.kind === 'user' ? caller.id : null,
});
const askerOf = ({ tenant, id: user, name: userName, session, actor }: Caller) => ({
  tenant: tenant!,
  user,
  userName,
  session: session!,
  actor: actor!,
});

/** What is pasted behind `restic -r`. Names and tokens stand in it as a URL wants them. */
function urlOf(ctx: Context, { user, token, name }: { user: string; token: string; name: string }): string {
  const server = new URL(origin(ctx));
  return `rest:${server.protocol}//${encodeURIComponent(user)}:${token}@${server.host}${repositoryPath(name)}`;
}

const withSecret = (
  answer: z.infer<typeof CreatedRepository>,
  { ctx, token }: { ctx: Context; token: string },
): z.infer<typeof CreatedRepositoryWithSecret> => {
  const { name, user } = answer.repository;
  return { ...answer, token: { ...answer.token, token, url: urlOf(ctx, { user: user.name, token, name }) } };
};

interface DrawnToken {
  token: string;
  user: string;
  name: string;
  ctx: Context;
}

export const resticRoutes: readonly ApiRoute[] = [
  read({
    path: '/v1/repositories',
    tag,
    summary: 'List repositories of restic',
    says: 'With what they hold, what of it is deleted and can be had back, and their health: by the newest snapshot.',
    may: { permission: 'computer.read', or: 'restore.personal', of: 'listing' },
    query: ListRepositoriesQuery,
    answer: RepositoryPage,
    read: ({ deps, caller, within, query }) =>
      listRepositories(
        deps.directory.database,
        { tenant: caller.tenant!, within },
        query as z.output<typeof ListRepositoriesQuery>,
      ),
  }),
  change({
    method: 'POST',
    path: '/v1/users/:user/repositories',
    tag,
    summary: 'Make a repository of restic for a user, with its first token',
    says: `It is a device of theirs without an agent. The answer has the URL to give to \`restic -r\`. ${once}`,
    may: { permission: 'computer.update', target: userInPath },
    params: userParams,
    body: CreateRepositoryRequest,
    status: 201,
    answer: z.union([CreatedRepositoryWithSecret, CreatedRepository]),
    prepare: async ({ ctx }) => ({ guid: drawGuid(), token: newResticToken(), ctx }),
    change: (tx, { by, target, body }, drawn) =>
      createRepository(tx, by, { tenant: target.tenant, user: target.id, ...body }, drawn),
    reveal: (answer, drawn) => withSecret(answer as z.infer<typeof CreatedRepository>, drawn),
  }),
  act({
    method: 'POST',
    path: '/v1/me/repositories',
    tag,
    summary: 'Make a repository of restic for yourself, with its first token',
    says: `The answer has the URL to give to \`restic -r\`. ${proof} Shown once.`,
    may: own,
    body: CreateOwnRepositoryRequest,
    status: 201,
    answer: CreatedRepositoryWithSecret,
    act: async ({ ctx, deps, caller, body, address }) => {
      const drawn = { guid: drawGuid(), token: newResticToken() };
      const by = byOf(caller!, address);
      const made = await createOwnRepository(deps.directory, by, askerOf(caller!), { ...body, address }, drawn);
      return withSecret(made, { ctx, token: drawn.token });
    },
  }),
  read({
    path: one,
    tag,
    summary: 'Show a repository of restic',
    says: 'What it holds by type of file, and what was deleted day by day. Renamed, blocked and deactivated it is as a device.',
    may: see,
    params: deviceParams,
    answer: RepositoryDetails,
    read: ({ deps, target }) => readRepository(deps.directory.database, of({ target })),
  }),
  read({
    path: `${one}/tokens`,
    tag,
    summary: 'List the tokens of a repository',
    may: see,
    params: deviceParams,
    query: ListTokensQuery,
    answer: TokenPage,
    read: ({ deps, target, query }) => listTokens(deps.directory.database, of({ target }), query),
  }),
  change({
    method: 'POST',
    path: `${one}/tokens`,
    tag,
    summary: 'Make a token for a repository of somebody',
    says: `For your own: POST /v1/me/repositories/GUID/tokens. ${once}`,
    may: { permission: 'computer.update', target: deviceInPath },
    params: deviceParams,
    body: CreateTokenRequest,
    status: 201,
    answer: z.union([TokenWithSecret, TokenView]),
    prepare: async ({ ctx, deps, target }): Promise<DrawnToken> => {
      const { name, user } = await readRepository(deps.directory.database, of({ target }));
      return { token: newResticToken(), name, user: user.name, ctx };
    },
    change: (tx, { by, target, body }, { token }) => createToken(tx, by, { ...of({ target }), ...body }, token),
    reveal: (answer, { ctx, ...drawn }) => ({ ...(answer as object), token: drawn.token, url: urlOf(ctx, drawn) }),
  }),
  act({
    method: 'POST',
    path: '/v1/me/repositories/:guid/tokens',
    tag,
    summary: 'Make a token for a repository of yours',
    says: `${proof} Shown once.`,
    may: own,
    params: z.strictObject({ guid: guidText }),
    body: CreateOwnTokenRequest,
    status: 201,
    answer: TokenWithSecret,
    act: async ({ ctx, deps, caller, params, body, address }) => {
      const token = newResticToken();
      const asker = askerOf(caller!);
      const request = { ...body, guid: params.guid, address };
      const made = await createOwnToken(deps.directory, byOf(caller!, address), asker, request, token);
      const found = { tenant: asker.tenant, guid: params.guid };
      const { name, user } = await readRepository(deps.directory.database, found);
      return { ...made, token, url: urlOf(ctx, { user: user.name, token, name }) };
    },
  }),
  change({
    method: 'DELETE',
    path: `${one}/tokens/:token`,
    tag,
    summary: 'Revoke a token of a repository',
    says: 'For good, from its next request on; it stays in the list.',
    may: manage,
    params: z.strictObject({ guid: guidText, token: idText }),
    answer: TokenView,
    change: (tx, { by, target, params }) => revokeToken(tx, by, { ...of({ target }), token: params.token }),
  }),
  read({
    path: `${one}/hidden`,
    tag,
    summary: 'List what was deleted in a repository and can be had back',
    may: see,
    params: deviceParams,
    query: ListHiddenQuery,
    answer: HiddenPage,
    read: ({ deps, target, query }) => listHidden(deps.directory.database, target, query),
  }),
  change({
    method: 'POST',
    path: `${one}/undelete`,
    tag,
    summary: 'Undo deletes in a repository',
    says: 'Of some files, or all since a moment. A step at a time: while the answer has a `next`, ask again with it. Quotas refuse none of it.',
    may: manage,
    params: deviceParams,
    body: UndeleteRequest.meta({ examples: [{ since: '2026-03-01T14:30:00Z', reason: 'deleted by mistake' }] }),
    answer: Undeleted,
    change: (tx, request) => undelete(tx, asking(request), request.body),
  }),
  read({
    path: `${one}/set-back`,
    tag,
    summary: 'Show what setting a repository back to a moment would do',
    says: 'It changes nothing. A step at a time: while the answer has a `next`, ask again with it, and add up.',
    may: see,
    params: deviceParams,
    query: SetBackQuery,
    answer: SetBack,
    read: ({ deps, target, query }) => trySetBack(deps.directory.database, target, query),
  }),
  change({
    method: 'POST',
    path: `${one}/set-back`,
    tag,
    summary: 'Set a repository back to how it was at a moment',
    says: 'What was deleted since is there again, what came later is hidden (and can be had back) but keys, the configuration is what it was, locks go. A step at a time: while the answer has a `next`, ask again with it. Quotas refuse none of it.',
    may: manage,
    params: deviceParams,
    body: SetBackRequest.meta({ examples: [{ to: '2026-03-01T14:30:00Z', reason: 'ransomware on the laptop' }] }),
    answer: SetBack,
    change: (tx, request) => setBack(tx, asking(request), request.body),
  }),
];
