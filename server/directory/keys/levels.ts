/** Who can open a vault is the organization's to fix: of a new one before the first block is sealed, and when it is raised. */
import { Problem } from '../../../protocol/problems.ts';
import type { Transaction } from '../../../storage/catalog/database.ts';
import type { KeyLevel } from '../../../storage/catalog/vaults.ts';
import { effectiveSettingsOf } from '../settings/stored.ts';

/** Each may be raised to a later one, and none lowered. */
export const keyLevels = ['standard', 'password', 'custom'] as const satisfies readonly KeyLevel[];

/** As the agent's user would say it. */
const meanings: Record<KeyLevel, string> = {
  standard: 'the server keeps the key',
  password: 'an archive password opens the key',
  custom: 'the key is yours alone',
};

/**
 * Refuses a new vault, or one that is raised, at another level than the one the organization has fixed. Asked in the
 * transaction that makes or raises the vault; one that commits beside a change of the setting came before it. Vaults that
 * are there keep their level.
 * @param field of the request
 * @throws Problem conflict (`field`), naming the level that is needed; Error when what is stored cannot be read:
 *   then nobody knows who may be able to open a new backup
 */
export async function requireKeyLevel(
  tx: Transaction,
  of: { tenant: number; organization: number },
  proposed: KeyLevel,
  field: 'vaultKey' | 'to' = 'vaultKey',
): Promise<void> {
  const name = 'keyEscrow.level';
  const { value: level, faults } = (await effectiveSettingsOf(tx, of.tenant, of.organization, [name]))[name];
  if (level === null) throw new Error(`a setting cannot be read: ${faults.map(({ message }) => message).join('; ')}`);
  if (level === 'free' || level === proposed) return;
  const detail = `your organization has fixed the level of backup keys: it has to be "${level}" (${meanings[level]}), not "${proposed}"`;
  throw new Problem('conflict', detail, { field, level });
}
