/**
 * Who an access token stands for, and whether they may act at all: one statement, asked with every request, so that what
 * was taken away (a session, a role, a state anywhere on the way up to the tenant) is gone with the next one. Nothing of
 * the answer may be kept beyond the request.
 */
import { type Database, statement, type Transaction } from '../../../../storage/catalog/database.ts';
import type { Directory } from '../../directory.ts';
import type { Actor, Grant } from '../../roles/may.ts';
import { isPermission } from '../../roles/permissions.ts';
import type { OwnSettings } from '../../settings/effective.ts';
import { type EffectiveState, heldOfOrganization, heldOfUser } from '../../users/effective-state.ts';
import { isSecondFactorWanted, settingsWithoutSecondFactor } from '../second-factor/wanted.ts';
import { tokenHash } from '../tokens.ts';

/** @param tokens rows named `a`: whose session or client, until when */
const actorsOf = (
  tokens: string,
): string => `SELECT a.expires_at <= now() AS expired, s.session_id AS session, coalesce(s.limited, false) AS limited,
          (s.ended_at IS NOT NULL OR c.revoked_at IS NOT NULL) AS ended,
          coalesce(s.ends_at <= now(), c.expires_at <= now()) AS over,
          u.user_id AS "userId", p.operator_id AS "operatorId", c.client_id AS "clientId",
          coalesce(u.name, p.name, c.name) AS name, o.tenant_id AS tenant, o.organization_id AS organization, o.path,
          coalesce(person.state, p.state, program.state) AS state, c.permissions, c.scope,
          (SELECT json_agg(json_build_object('role', r.role, 'scope', r.scope, 'organization', r.organization_id)
                           ORDER BY r.role, r.organization_id)
             FROM user_roles r WHERE r.user_id = u.user_id AND r.tenant_id = u.tenant_id) AS roles,
          bare.settings AS "askOf",
          EXISTS (SELECT 1 FROM operator_second_factors f
                   WHERE f.operator_id = p.operator_id AND f.confirmed_at IS NOT NULL) AS "operatorsSecondFactor"
     FROM ${tokens}
     LEFT JOIN sessions s ON s.session_id = a.session_id
     LEFT JOIN users u ON u.user_id = s.user_id AND u.tenant_id = s.tenant_id
     LEFT JOIN operators p ON p.operator_id = s.operator_id
     LEFT JOIN api_clients c ON c.client_id = a.client_id
     LEFT JOIN organizations o ON o.organization_id = coalesce(u.organization_id, c.organization_id)
                              AND o.tenant_id = coalesce(u.tenant_id, c.tenant_id)
     LEFT JOIN LATERAL ${settingsWithoutSecondFactor} bare ON true
     LEFT JOIN LATERAL ${heldOfUser} person ON u.user_id IS NOT NULL
     LEFT JOIN LATERAL ${heldOfOrganization} program ON c.client_id IS NOT NULL`;

const sql = {
  load: statement('directory.loadActor', `${actorsOf('access_tokens a')} WHERE a.token_sha256 = $1`),
  again: statement(
    'directory.loadActorAgain',
    actorsOf(`(SELECT $1::bigint AS session_id, $2::bigint AS client_id, 'infinity'::timestamptz AS expires_at) a`),
  ),
};

interface Row {
  expired: boolean;
  session: number | null;
  limited: boolean;
  ended: boolean;
  over: boolean;
  userId: number | null;
  operatorId: number | null;
  clientId: number | null;
  name: string;
  tenant: number | null;
  organization: number | null;
  path: number[] | null;
  state: EffectiveState;
  permissions: string[] | null;
  scope: 'tree' | 'all' | null;
  roles: Grant[] | null;
  askOf: OwnSettings[] | null;
  operatorsSecondFactor: boolean;
}

/** Where somebody of a tenant is. */
interface Placed {
  tenant: number;
  organization: number;
  /** From the tenant's top organization down to `organization`. */
  organizationPath: readonly number[];
}

export interface UserIdentity extends Placed {
  kind: 'user';
  user: number;
  userName: string;
  session: number;
}

export interface ClientIdentity extends Placed {
  kind: 'client';
  client: number;
  clientName: string;
}

export interface OperatorIdentity {
  kind: 'operator';
  operator: number;
  operatorName: string;
  session: number;
  /** A generator of codes is in force. */
  secondFactor: boolean;
}

export type Identity = UserIdentity | ClientIdentity | OperatorIdentity;

/**
 * Why a token is not enough. `unknown`: it is none of ours, or was forgotten; `expired`: it is past its minutes, or its
 * session or client past their days; `revoked`: signed out, ended or revoked; the states: of the user or anything above.
 */
export type Refusal = 'unknown' | 'expired' | 'revoked' | Exclude<EffectiveState, 'active'>;

export type LoadedActor =
  | {
      refused: null;
      identity: UserIdentity | ClientIdentity;
      actor: Actor;
      /** The session may only set up a second factor, and must be refused everything else. */
      limited: boolean;
    }
  /**
   * Operators have no permission in any tenant, so there is no actor to ask `may` about. `limited` as the session was made
   * or refreshed: whether the server wants a second factor of them is not the database's to know (`isOperatorLimited`).
   */
  | { refused: null; identity: OperatorIdentity; actor: null; limited: boolean }
  | {
      refused: Refusal;
      /** Whose token it was, for the log; null: `unknown`. */
      identity: Identity | null;
    };

/**
 * @param accessToken as it was sent; whatever it is
 * @returns who it is, or why not. To the outside every refusal is one 401: which of them it was is for the log.
 */
export async function loadActor(db: Database | Transaction, accessToken: string): Promise<LoadedActor> {
  const hash = tokenHash(accessToken);
  const [row] = hash ? await db.query<Row>(sql.load, [hash]) : [];
  return loaded(row);
}

/**
 * The same some time later, for what lasts longer than an access token: by the session or the client that it was of.
 * @returns as `loadActor`; `unknown` also when it has been forgotten
 */
export async function loadActorAgain(
  db: Database | Transaction,
  { session, client }: { session: number | null; client: number | null },
): Promise<LoadedActor> {
  const [row] = await db.query<Row>(sql.again, [session, client]);
  return loaded(row?.name == null ? undefined : row);
}

function loaded(row: Row | undefined): LoadedActor {
  if (!row) return { refused: 'unknown', identity: null };

  const identity = identityOf(row);
  const refused = refusalOf(row);
  if (refused) return { refused, identity };
  if (identity.kind === 'operator') return { refused: null, identity, actor: null, limited: row.limited };
  const limited = row.limited || (row.askOf !== null && isSecondFactorWanted(row.askOf));
  return { refused: null, identity, actor: actorOf(identity, row), limited };
}

/** Whether an operator's session can only set up a second factor. */
export function isOperatorLimited(
  { operatorSecondFactor }: Pick<Directory, 'operatorSecondFactor'>,
  loaded: { identity: OperatorIdentity; limited: boolean },
): boolean {
  return loaded.limited || (operatorSecondFactor && !loaded.identity.secondFactor);
}

function refusalOf(row: Row): Refusal | null {
  if (row.ended) return 'revoked';
  if (row.expired || row.over) return 'expired';
  return row.state === 'active' ? null : row.state;
}

function identityOf(row: Row): Identity {
  const { userId, operatorId, clientId, name, session } = row;
  if (operatorId !== null)
    return {
      kind: 'operator',
      operator: operatorId,
      operatorName: name,
      session: session!,
      secondFactor: row.operatorsSecondFactor,
    };
  const placed = { tenant: row.tenant!, organization: row.organization!, organizationPath: row.path! };
  if (userId !== null) return { kind: 'user', user: userId, userName: name, session: session!, ...placed };
  return { kind: 'client', client: clientId!, clientName: name, ...placed };
}

function actorOf({ tenant, organization, ...identity }: UserIdentity | ClientIdentity, row: Row): Actor {
  if (identity.kind === 'user') return { tenant, organization, user: identity.user, grants: row.roles ?? [] };
  // A permission that is none (any more) gives nothing.
  const permissions = row.permissions!.filter(isPermission);
  return { tenant, organization, user: null, grants: [{ permissions, scope: row.scope!, organization }] };
}
