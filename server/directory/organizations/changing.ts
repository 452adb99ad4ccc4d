/** What is one organization's alone: its name, and the key by which agents find it. Under the lock of its row. */
import assert from 'node:assert/strict';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import type { By } from '../audit/act.ts';
import { record } from '../audit/record.ts';
import { lockOrganization } from './locking.ts';
import { readOrganization } from './reading.ts';
import { isRegistrationKey } from './registration-key.ts';

const sql = {
  rename: statement(
    'directory.renameOrganization',
    'UPDATE organizations SET name = $3, version = version + 1 WHERE tenant_id = $1 AND organization_id = $2',
  ),
  setKey: statement(
    'directory.setRegistrationKey',
    'UPDATE organizations SET registration_key = $3, version = version + 1 WHERE tenant_id = $1 AND organization_id = $2',
  ),
};

interface OneOrganization {
  tenant: number;
  organization: number;
  expected: number | null;
}

/** @throws Problem not_found, precondition_failed */
export async function renameOrganization(tx: Transaction, by: By, request: OneOrganization & { name: string }) {
  const { tenant, organization, name, expected } = request;
  const before = await lockOrganization(tx, tenant, organization, expected);
  if (before.name !== name) {
    await tx.query(sql.rename, [tenant, organization, name]);
    await record(tx, by, {
      action: 'organization.rename',
      target: { kind: 'organization', id: organization, name },
      organization,
      result: 'done',
      details: { from: before.name, to: name },
    });
  }
  return readOrganization(tx, { tenant, organization });
}

/**
 * Gives an organization another registration key. The one before it opens nothing from the commit on; devices that are
 * registered stay so. Neither key is in the log.
 * @param request.registrationKey drawn before the transaction (`newRegistrationKey`)
 * @throws Problem not_found, precondition_failed
 */
export async function rotateRegistrationKey(
  tx: Transaction,
  by: By,
  request: OneOrganization & { registrationKey: string },
) {
  const { tenant, organization, registrationKey, expected } = request;
  assert(isRegistrationKey(registrationKey), 'a registration key was made some other way');
  const { name } = await lockOrganization(tx, tenant, organization, expected);
  await tx.query(sql.setKey, [tenant, organization, registrationKey]);
  await record(tx, by, {
    action: 'organization.rotate_key',
    target: { kind: 'organization', id: organization, name },
    organization,
    result: 'done',
    details: {},
  });
  return readOrganization(tx, { tenant, organization });
}
