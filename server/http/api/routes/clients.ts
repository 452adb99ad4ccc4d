/** API clients: programs that sign in as themselves, with permissions of their own. */
import { z } from 'zod';
import {
  createClient,
  drawClient,
  listClients,
  type OfClient,
  readClient,
  revokeClient,
  rotateClient,
  updateClient,
} from '../../../directory/sign-in/clients/clients.ts';
import {
  ClientPage,
  ClientView,
  ClientWithSecret,
  CreateClientRequest,
  ListClientsQuery,
  RotateClientRequest,
  UpdateClientRequest,
} from '../../../directory/sign-in/clients/shapes.ts';
import { newToken } from '../../../directory/sign-in/tokens.ts';
import { type ClientTarget, findClientTarget } from '../../../directory/targets.ts';
import { idText, organizationInBody } from '../finders.ts';
import { type ApiRoute, change, type Finder, read } from '../route.ts';

const tag = 'API clients';
const one = '/v1/clients/:client';
const params = z.strictObject({ client: idText });

const clientInPath: Finder<{ client: number }, unknown, unknown, ClientTarget> = (db, { actor, params }) =>
  findClientTarget(db, actor.tenant, params.client);

const about = ({ target, expected }: { target: ClientTarget; expected: number | null }): OfClient => ({
  tenant: target.tenant,
  client: target.id,
  expected,
});

const withSecret = <Drawn extends { secret: string }>(answer: unknown, { secret }: Drawn) => ({
  ...(answer as object),
  clientSecret: secret,
});
const onceOnly = 'The secret is shown once: a repeated request is answered without it.';

export const clientRoutes: readonly ApiRoute[] = [
  read({
    path: '/v1/clients',
    tag,
    summary: 'List API clients',
    may: { permission: 'user.read', of: 'listing' },
    query: ListClientsQuery,
    answer: ClientPage,
    read: ({ deps, caller, within, query }) =>
      listClients(deps.directory.database, { tenant: caller.tenant!, within }, query),
  }),
  change({
    method: 'POST',
    path: '/v1/clients',
    tag,
    summary: 'Make an API client',
    says: `With no permission that you do not have as far. ${onceOnly}`,
    may: { permission: 'user.create', target: organizationInBody('organization') },
    body: CreateClientRequest,
    status: 201,
    answer: z.union([ClientWithSecret, ClientView]),
    prepare: async () => drawClient(),
    change: (tx, { by, caller, body }, drawn) =>
      createClient(tx, by, { ...body, tenant: caller.tenant!, giver: caller.actor! }, drawn),
    reveal: withSecret,
  }),
  read({
    path: one,
    tag,
    summary: 'Show an API client',
    may: { permission: 'user.read', target: clientInPath },
    params,
    answer: ClientView,
    read: ({ deps, target }) => readClient(deps.directory.database, { tenant: target.tenant, client: target.id }),
  }),
  change({
    method: 'PATCH',
    path: one,
    tag,
    summary: 'Change an API client',
    may: { permission: 'user.update', target: clientInPath },
    params,
    body: UpdateClientRequest,
    answer: ClientView,
    change: (tx, request) =>
      updateClient(tx, request.by, { ...about(request), giver: request.caller.actor!, change: request.body }),
  }),
  change({
    method: 'POST',
    path: `${one}/secret`,
    tag,
    summary: 'Give an API client a new secret',
    says: `The one before works on for a while. ${onceOnly}`,
    may: { permission: 'user.update', target: clientInPath },
    params,
    body: RotateClientRequest,
    answer: z.union([ClientWithSecret, ClientView]),
    prepare: async () => ({ secret: newToken() }),
    change: (tx, request, drawn) =>
      rotateClient(
        tx,
        request.by,
        { ...about(request), giver: request.caller.actor!, overlapHours: request.body.overlapHours },
        drawn,
      ),
    reveal: withSecret,
  }),
  change({
    method: 'DELETE',
    path: one,
    tag,
    summary: 'Revoke an API client',
    says: 'For good; it stays in the list.',
    may: { permission: 'user.delete', target: clientInPath },
    params,
    answer: ClientView,
    change: (tx, request) => revokeClient(tx, request.by, about(request)),
  }),
];
