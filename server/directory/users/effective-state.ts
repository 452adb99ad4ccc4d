/**
 * The state that holds: the strictest of a row's own and of those above it, found where it is asked and copied nowhere
 * (docs/decisions/directory.md). One piece of SQL, so that a token, a list and a deactivation mean the same by it.
 */
import { z } from 'zod';

/** From the mildest to the strictest. What each stops: docs/decisions/directory.md, "What each state stops". */
export const effectiveStates = [
  'active',
  'suspended',
  'blocked',
  'deauthorized',
  'deactivated',
  'offboarding',
  'replaced',
  'deleting',
  'deleted',
] as const;

export type EffectiveState = (typeof effectiveStates)[number];

const order = `ARRAY[${effectiveStates.map((state) => `'${state}'`).join(', ')}]`;

/** Those of an organization's row `o`, of the ones above it, and of their tenant. */
const above = `SELECT 'organization', a.organization_id::text, a.name, a.state, 100 - cardinality(a.path)
         FROM unnest(o.path) AS p (id) JOIN organizations a ON a.organization_id = p.id
       UNION ALL SELECT 'tenant', t.tenant_id::text, t.name, t.state, 100 FROM tenants t WHERE t.tenant_id = o.tenant_id`;

// A state that this code does not know has no place in the order, and so comes first: nothing is allowed by it.
const strictest = (rows: string): string => `(SELECT s.state, s.kind, s.id, s.name FROM (
       ${rows}) s (kind, id, name, state, distance)
      ORDER BY array_position(${order}, s.state) DESC, s.distance LIMIT 1)`;

const ofUser = `SELECT 'user', u.user_id::text, u.name, u.state, 2 UNION ALL ${above}`;

/** A row (state, kind, id, name) for a user `u` in an organization `o`: what holds, and the nearest that says so. */
export const heldOfUser = strictest(ofUser);

/** The same for a device `d` of that user. */
export const heldOfDevice = strictest(`SELECT 'device', d.guid::text, d.name, d.state, 1 UNION ALL ${ofUser}`);

/** The same for an organization `o`. */
export const heldOfOrganization = strictest(above);

/** Whether archives of what is in such a state are cold. */
export const isOut = (state: EffectiveState): boolean =>
  state === 'deactivated' || state === 'offboarding' || state === 'deleting' || state === 'deleted';

export const EffectiveStateView = z
  .strictObject({
    state: z.enum(effectiveStates),
    from: z
      .strictObject({
        kind: z.enum(['device', 'user', 'organization', 'tenant']),
        id: z.union([z.number(), z.string()]).meta({ description: 'A GUID, as text, for a device.' }),
        name: z.string(),
      })
      .meta({ description: 'The nearest, from itself upwards, whose own state is the one that holds.' }),
  })
  .meta({ description: 'What holds: the strictest of its own state and of all states above it.' });

export interface HeldRow {
  heldState: EffectiveState;
  heldKind: 'device' | 'user' | 'organization' | 'tenant';
  heldId: string;
  heldName: string;
}

/** Columns that `effectiveOf` reads, from a row named `held`. */
export const heldColumns = `held.state AS "heldState", held.kind AS "heldKind", held.id AS "heldId", held.name AS "heldName"`;

export function effectiveOf({ heldState, heldKind, heldId, heldName }: HeldRow): z.infer<typeof EffectiveStateView> {
  const id = heldKind === 'device' ? heldId : Number(heldId);
  return { state: heldState, from: { kind: heldKind, id, name: heldName } };
}
