/** Tenants with a tree, for tests. */
import type { Database } from '../../../storage/catalog/database.ts';
import type { By } from '../audit/act.ts';
import { insertUser } from '../users/people.ts';
import { createOrganization } from './creating.ts';
import { insertOrganization, insertTenant } from './inserting.ts';
import { moveOrganization } from './moving.ts';
import { newRegistrationKey } from './registration-key.ts';
import { changeOrganizationState, type OrganizationStateChange } from './states.ts';

export const operator: By = { tenant: null, party: { kind: 'operator', id: 1, name: 'olga' }, address: '192.0.2.9' };

export interface TestTenant {
  tenant: number;
  /** The topmost organization, with the administrator in it. */
  top: number;
  administrator: number;
  /** The administrator. */
  by: By;
  /** Makes a tree `a > b > c ...` below the parent. @returns the ids */
  chain(parent: number | null, ...names: string[]): Promise<number[]>;
  move(organization: number, parent: number | null, expected?: number): ReturnType<typeof moveOrganization>;
  change(
    change: OrganizationStateChange,
    organization: number,
    expected?: number,
  ): ReturnType<typeof changeOrganizationState>;
  /** What the log of the tenant says, oldest first. */
  acts(action: string): Promise<{ target: string; organization: number | null; details: Record<string, unknown> }[]>;
  /** A user without a password that fits anything. */
  user(organization: number, name: string): Promise<number>;
}

export async function testTenant(db: Database): Promise<TestTenant> {
  const [registrationKey, name] = [newRegistrationKey(), 'tenant'];
  const { tenant, top, administrator } = await db.transaction(async (tx) => {
    const tenant = await insertTenant(tx, name);
    const top = await insertOrganization(tx, { tenantId: tenant, parentId: null, name: 'top', registrationKey });
    const user = { tenantId: tenant, organizationId: top, name: 'ada', passwordHash: '-', administrator: true };
    return { tenant, top, administrator: await insertUser(tx, user) };
  });
  const by: By = { tenant, party: { kind: 'user', id: administrator, name: 'ada' }, address: '192.0.2.1' };

  return {
    tenant,
    top,
    administrator,
    by,
    async chain(parent, ...names) {
      const made: number[] = [];
      for (const name of names) {
        const request = { tenant, parent: made.at(-1) ?? parent, name, registrationKey: newRegistrationKey() };
        made.push((await db.transaction((tx) => createOrganization(tx, by, request))).id);
      }
      return made;
    },
    move: (organization, parent, expected) =>
      db.transaction((tx) => moveOrganization(tx, by, { tenant, organization, parent, expected: expected ?? null })),
    change: (change, organization, expected) =>
      db.transaction((tx) =>
        changeOrganizationState(tx, by, { tenant, organization, change, expected: expected ?? null }),
      ),
    acts: (action) =>
      db.query(
        {
          name: '',
          text: `SELECT target_kind || ' ' || target_id AS target, organization_id AS organization, details FROM acts
                  WHERE tenant_id = $1 AND action = $2 ORDER BY number`,
        },
        [tenant, action],
      ),
    user: (organizationId, name) =>
      db.transaction((tx) => insertUser(tx, { tenantId: tenant, organizationId, name, passwordHash: '-' })),
  };
}
