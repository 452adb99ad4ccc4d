/**
 * Repositories and tokens that users make for themselves. A token of a repository lasts, and an access token may have been taken
 * from a log or a browser: so whoever asks shows anew who they are, as for a registration code (devices/registering/own-codes.ts).
 *
 * Lock order: as repositories.ts and tokens.ts.
 */
import type { z } from 'zod';
import { Problem } from '../../../protocol/problems.ts';
import { statement, type Transaction } from '../../../storage/catalog/database.ts';
import type { By } from '../audit/act.ts';
import { type Asker, withProof } from '../devices/registering/own-codes.ts';
import type { Directory } from '../directory.ts';
import { isGuid } from '../tenant-view.ts';
import { createRepository, type DrawnRepository, findMadeRepository } from './repositories.ts';
import type { CreatedRepository, CreateOwnRepositoryRequest, CreateOwnTokenRequest, TokenView } from './shapes.ts';
import { createToken, findMadeToken } from './tokens.ts';

const sql = {
  isOwn: statement(
    'directory.isOwnRepository',
    "SELECT 1 FROM devices WHERE tenant_id = $1 AND user_id = $2 AND guid = $3::bigint AND kind = 'restic'",
  ),
};

/** @throws Problem as `createRepository`, and as makeOwnRegistrationCode of the password, the code and the session */
export function createOwnRepository(
  directory: Directory,
  by: By,
  asker: Asker,
  request: z.output<typeof CreateOwnRepositoryRequest> & { address: string },
  drawn: DrawnRepository,
): Promise<z.infer<typeof CreatedRepository>> {
  const { password, code, address, name, token } = request;
  const { tenant, user } = asker;
  return withProof(
    directory,
    by,
    asker,
    { password, ...(code !== undefined && { code }), address },
    {
      made: (tx) => findMadeRepository(tx, { tenant, ...drawn }),
      make: (tx) => createRepository(tx, by, { tenant, user, name, token }, drawn),
    },
  );
}

/** @throws Problem not_found when it is not theirs; as `createToken`, and as makeOwnRegistrationCode */
export async function createOwnToken(
  directory: Directory,
  by: By,
  asker: Asker,
  request: z.output<typeof CreateOwnTokenRequest> & { guid: string; address: string },
  drawn: string,
): Promise<z.infer<typeof TokenView>> {
  const { guid, name, mode, days, password, code, address } = request;
  const { tenant, user } = asker;
  await assertOwn(directory.database, { tenant, user, guid });
  return withProof(
    directory,
    by,
    asker,
    { password, ...(code !== undefined && { code }), address },
    {
      made: (tx) => findMadeToken(tx, { tenant, guid }, drawn),
      make: async (tx) => {
        await assertOwn(tx, { tenant, user, guid });
        return createToken(tx, by, { tenant, guid, name, mode, days }, drawn);
      },
    },
  );
}

async function assertOwn(
  db: Transaction,
  { tenant, user, guid }: { tenant: number; user: number; guid: string },
): Promise<void> {
  if (!isGuid(guid) || (await db.query(sql.isOwn, [tenant, user, guid])).length === 0)
    throw new Problem('not_found', 'there is no such repository of yours');
}
