/** From the configuration to what the engine is opened with. */
import type { DatabaseSettings } from '../storage/catalog/database.ts';
import type { ObjectStoreSettings } from '../storage/objects/open-store.ts';
import { type StorageSettings, storageDefaults } from '../storage/storage.ts';
import type { Config } from './config.ts';

export function databaseSettings(config: Config, connectionString: string): DatabaseSettings {
  return {
    connectionString,
    poolMax: config.databasePoolMax,
    statementTimeoutMs: config.databaseStatementTimeoutMs,
    lockTimeoutMs: config.databaseLockTimeoutMs,
    transactionTimeoutMs: config.databaseTransactionTimeoutMs,
    idleInTransactionTimeoutMs: config.databaseIdleTimeoutMs,
    connectTimeoutMs: config.databaseConnectTimeoutMs,
    applicationName: 'holdfast',
  };
}

export function objectStoreSettings(config: Config): ObjectStoreSettings {
  if (config.objects === 'directory') return { kind: 'directory', path: config.objectsFolder };
  const { s3AccessKeyId: accessKeyId, s3SecretAccessKey: secretAccessKey } = config;
  return {
    kind: 's3',
    region: config.s3Region,
    bucket: config.s3Bucket!, // the configuration asks for it when the objects are in s3
    forcePathStyle: config.s3PathStyle,
    ...(config.s3Endpoint && { endpoint: config.s3Endpoint }),
    ...(config.s3Prefix && { prefix: config.s3Prefix.endsWith('/') ? config.s3Prefix : `${config.s3Prefix}/` }),
    ...(accessKeyId && secretAccessKey && { credentials: { accessKeyId, secretAccessKey } }),
  };
}

export function storageSettings({ claimWindowMs, uploadLeaseMs, objectDeleteDelayMs }: Config): StorageSettings {
  return { ...storageDefaults, claimWindowMs, uploadLeaseMs, objectDeleteDelayMs };
}
