/**
 * The keys of a sealed export: this machine's own, when it is registered for that vault, else what the user gives. An
 * export holds none; of a vault at level 'password' made by its user, the ones that the archive password opens.
 */
import type { StoredVersion } from '../../../protocol/messages.ts';
import { type ExportHeader, keptKeyOf } from '../../../protocol/sealed-export.ts';
import { type Keyring, makeKeyring, SealError, verifyVersionOf } from '../../../protocol/sealing/index.ts';
import { ExportError } from '../../export/scan-export.ts';
import { keyringOf, type Registration } from '../../state/registration.ts';
import { UsageError } from '../output.ts';
import { openKeptKeys } from './kept-keys.ts';
import { once, readArchivePassword, readCustomKey, type SecretOptions } from './secrets.ts';

export interface ExportKeys {
  keyring: Keyring;
  /** This machine's: of the same vault by its number, which another server may have given, too. */
  areOwn: boolean;
}

/**
 * @param registration of this machine; null: it has none
 * @throws UsageError saying what is needed; SealError wrong_password; Error for another key than the vault's
 */
export async function keysFor(
  header: ExportHeader,
  registration: Registration | null,
  options: SecretOptions,
  output: Parameters<typeof readCustomKey>[2],
): Promise<ExportKeys> {
  const given = options.archivePasswordFile !== undefined || options.customKeyFile !== undefined;
  if (!given && registration?.vault === header.vault) return { keyring: keyringOf(registration), areOwn: true };
  const level = header.keys.at(-1)?.level;
  const kept = header.keys.flatMap((key) => keptKeyOf(key) ?? []);
  if (level === undefined || level === 'standard' || kept.length < header.keys.length)
    throw new UsageError(
      `${whyNoKeys(level)}\nOpen it on a device of the user whose backup it is (this machine is none), or restore from the server with the agent.`,
    );
  if (level === 'password' && options.customKeyFile !== undefined)
    throw new UsageError("this export opens with the archive password; --custom-key-file is for level 'custom'");
  if (level === 'custom' && options.customKeyFile === undefined)
    throw new UsageError('this export opens with the key file of its user: give --custom-key-file FILE');
  const keys = await openKeptKeys(kept, {
    archivePassword: once(() => readArchivePassword(options, { isNew: false })),
    customKey: once(() => readCustomKey(options, { mayMake: false }, output)),
  });
  return { keyring: makeKeyring(keys), areOwn: false };
}

function whyNoKeys(level: ExportHeader['keys'][number]['level'] | undefined): string {
  if (level === 'password')
    return 'This export was made by somebody else than its user, so the key that the archive password opens is not in it.';
  return "This export is of a backup whose keys are with its server and its user's devices; none is in it.";
}

/**
 * That keys which were taken by the vault's number are those of this export.
 * @param versions a few of its first
 * @throws ExportError when none of them is authentic by these keys
 */
export function assertFitting({ keyring }: ExportKeys, archive: number, versions: readonly StoredVersion[]): void {
  const fits = (version: StoredVersion): boolean => {
    try {
      return verifyVersionOf(keyring, archive, version);
    } catch (error) {
      if (error instanceof SealError) return error.reason === 'wrong_generation';
      throw error;
    }
  };
  if (versions.length > 0 && !versions.some(fits))
    throw new ExportError(
      "this machine's keys do not open this export: it is of another server or user, or was altered. Give --archive-password-file or --custom-key-file, or open it on a device of that user",
    );
}
