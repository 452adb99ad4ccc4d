/** Opens the key services of the settings: one seals, and the other, where it is there, still opens what it has sealed. */
import { existsSync } from 'node:fs';
import { openKeyFile } from './key-file.ts';
import { type KeyHolder, type KeyService, KeyServiceError } from './key-service.ts';
import { kmsKeyService } from './kms-keys.ts';
import { recordFormats, sealingKeyOf } from './records.ts';

export interface KeySettings {
  /** Which seals. */
  keyService: 'file' | 'kms';
  keyFile: string;
  /** Absent: no KMS. */
  kmsKeyId?: readonly string[] | undefined;
  kmsRegion?: string | undefined;
  kmsEndpoint?: string | undefined;
}

/**
 * @param options.createFile make the key file when it is to seal and is not there; only while `hasFileSealedRecords` says no
 * @throws KeyServiceError refused, when the key file cannot be used
 */
export function openKeyService(settings: KeySettings, options: { createFile: boolean }): KeyService {
  const { keyService, keyFile, kmsKeyId: keyIds, kmsRegion: region, kmsEndpoint: endpoint } = settings;
  const kms = keyIds ? [kmsKeyService({ keyIds, ...(region && { region }), ...(endpoint && { endpoint }) })] : [];
  if (keyService === 'file') return severalKeyServices([openKeyFile(keyFile, { create: options.createFile }), ...kms]);
  const [sealing] = kms;
  if (!sealing) throw new RangeError('the configuration asks for HOLDFAST_KMS_KEY_ID');
  return severalKeyServices([sealing, ...(existsSync(keyFile) ? [openKeyFile(keyFile, { create: false })] : [])]);
}

/** One service of several: the first seals, and each opens what it has sealed. */
export function severalKeyServices(holders: readonly [KeyHolder, ...KeyHolder[]]): KeyService {
  const [sealing] = holders;
  return {
    seal: (plain, context) => sealing.seal(plain, context),
    async unseal(record, context) {
      const key = sealingKeyOf(record);
      const holder = holders.find(({ format }) => format === record[0]);
      if (holder) return holder.unseal(record, context);
      const variable = record[0] === recordFormats.kms ? 'HOLDFAST_KMS_KEY_ID' : 'HOLDFAST_KEY_FILE';
      throw new KeyServiceError('refused', `a record is sealed with ${key}: set ${variable}, so that it can be opened`);
    },
    keys: async () => (await Promise.all(holders.map((holder) => holder.keys()))).flat(),
    check: () => sealing.check(),
  };
}
