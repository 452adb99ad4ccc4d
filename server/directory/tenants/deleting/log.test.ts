import { expect, test } from '@jest/globals';
import { newHeldFence, storageForEachTest } from '../../../../tests/helpers/storage.ts';
import { newAuditKeyFile, readAuditKeys } from '../../audit/heads/audit-key.ts';
import { expireLogs } from '../../audit/heads/expire-logs.ts';
import { signHeads } from '../../audit/heads/sign-heads.ts';
import { asOwner, chainAgain } from '../../audit/heads/testing.ts';
import { verifyLog } from '../../audit/heads/verify-log.ts';
import { testTenant } from '../../organizations/testing.ts';
import { pruneDeps } from '../../retention.ts';
import { deleteTenants } from './delete-tenants.ts';
import { begin, leave } from './testing.ts';

const storage = storageForEachTest();

test.each<[said: string, days: string, expires: boolean]>([
  ['as long as it has said', '300', true],
  ['longer than its acts are old', '500', false],
  ['for good, where that cannot be read', '"some time"', false],
])('the log of a tenant that is deleted is kept %s', async (_, days, expires) => {
  const keys = readAuditKeys(newAuditKeyFile());
  const fence = await newHeldFence(storage);
  const { tenant, top } = await testTenant(storage.database);
  await storage.rows(
    `INSERT INTO organization_settings (tenant_id, organization_id, name, value) VALUES ($1, $2, 'auditLog.days', $3)`,
    [tenant, top, days],
  );
  await leave(storage, tenant);
  await begin(storage, tenant);
  expect(await deleteTenants(storage, pruneDeps(fence))).toMatchObject({ finished: 1 });
  const actions = async () =>
    (
      await storage.rows<{ action: string }>('SELECT action FROM acts WHERE tenant_id = $1 ORDER BY number', [tenant])
    ).map(({ action }) => action);
  const all = ['tenant.offboard', 'tenant.delete', 'tenant.deleted'];
  expect(await actions()).toEqual(all);
  await asOwner(
    storage,
    `UPDATE acts SET at = at - interval '400 days' WHERE tenant_id = ${tenant} AND number < 3`,
    chainAgain(tenant, 1),
  );
  await signHeads(storage, keys, fence, { actsMax: 1 });
  expect(await expireLogs(storage, keys, fence)).toMatchObject({ deleted: expires ? 2 : 0 });
  expect(await actions()).toEqual(expires ? ['tenant.deleted', 'log.expire'] : all);
  expect((await verifyLog(storage, keys, tenant)).findings).toEqual([]);
});
