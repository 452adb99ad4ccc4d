/** Where in the tree an organization may be put: what creating and moving ask, under the lock of the tenant's row. */
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import { organizationDepthMax } from './shapes.ts';

const sql = {
  place: statement(
    'directory.placeInTree',
    `SELECT o.path,
            (SELECT json_build_object('id', a.organization_id, 'name', a.name)
               FROM unnest(o.path) AS above (id) JOIN organizations a ON a.organization_id = above.id
              WHERE a.state = 'deactivated' ORDER BY cardinality(a.path) LIMIT 1) AS deactivated
       FROM organizations o WHERE o.tenant_id = $1 AND o.organization_id = $2`,
  ),
};

export interface Place {
  /** From the top down to the organization; empty: above all of them. */
  path: number[];
  /** The topmost on that path that is deactivated. */
  deactivated: { id: number; name: string } | null;
}

/** @param organization null: the top of the tenant. @returns null: there is no such organization */
export async function findPlace(tx: Transaction, tenant: number, organization: number | null): Promise<Place | null> {
  if (organization === null) return { path: [], deactivated: null };
  const [row] = await tx.query<Place>(sql.place, [tenant, organization]);
  return row ?? null;
}

/**
 * The path of a parent that takes an organization, with what is below it: so many levels.
 * @param parent null: there is none such
 * @param about.moving which one comes; left out: a new one
 * @throws Problem not_found and conflict, field `parent`
 */
export function parentFor(parent: Place | null, { levels, moving }: { levels: number; moving?: number }): number[] {
  if (!parent) throw new Problem('not_found', 'there is no such organization to be below', { field: 'parent' });
  const { path, deactivated } = parent;
  if (moving !== undefined && path.includes(moving))
    throw new Problem('conflict', 'an organization cannot be below itself', { field: 'parent' });
  if (deactivated)
    throw new Problem(
      'conflict',
      `organization ${deactivated.name} (${deactivated.id}) is deactivated: nothing is put below it`,
      {
        field: 'parent',
        deactivated,
      },
    );
  if (path.length + levels > organizationDepthMax)
    throw new Problem(
      'conflict',
      `the tree would have ${path.length + levels} levels there, and may have ${organizationDepthMax}`,
      {
        field: 'parent',
        levels: path.length + levels,
        levelsMax: organizationDepthMax,
      },
    );
  return path;
}
