/** From the configuration to the bounds of the HTTP shell; what is no setting keeps the shell's own default. */
import { readFileSync } from 'node:fs';
import type { Config } from './config.ts';
import type { StagingSettings } from './directory/restores/staging/stage.ts';
import { budgetDefaults, type HttpSettings, httpDefaults, type TlsSettings } from './http/settings.ts';
import { stagingSettings } from './http/staging-settings.ts';

/** @throws Error naming the setting whose file cannot be read */
export function httpSettings(config: Config, selfSigned: TlsSettings | null): HttpSettings {
  return {
    ...httpDefaults,
    host: config.host,
    port: config.port,
    tls: config.tls ? (selfSigned ?? readTlsFiles(config)) : null,
    connectionsMax: config.connectionsMax,
    sessionStreamsMax: config.sessionStreamsMax,
    headersTimeoutMs: config.headersTimeoutMs,
    requestTimeoutMs: config.requestTimeoutMs,
    keepAliveTimeoutMs: config.keepAliveTimeoutMs,
    sessionIdleMs: config.sessionIdleMs,
    connectionWindowBytes: config.connectionWindowBytes,
    streamWindowBytes: config.streamWindowBytes,
    streamWindowBytesMax: config.streamWindowMaxBytes,
    ...restoreSettings(config),
    commandChannelsMax: Math.min(config.commandChannelsMax, Math.floor(config.connectionsMax * 0.75)),
    pushExpiresMs: config.pushExpiresMs,
    metricsToken: config.metricsToken ?? null,
    proxies: config.proxies,
    publicUrl: config.publicUrl?.replace(/\/+$/, '') ?? null,
    budget: {
      ...budgetDefaults,
      totalBytes: config.uploadBudgetBytes,
      deviceBytes: config.uploadBudgetDeviceBytes,
      rateBytesPerSecondMin: config.uploadMinRateBytes,
      waitMs: config.uploadWaitMs,
      idleMs: config.bodyIdleTimeoutMs,
    },
  };
}

/** Bounds of restores, which are made by processes that answer and by those that work. */
function restoreSettings(config: Config) {
  return {
    restoresMax: config.restoresMax,
    restoresPerPersonMax: Math.min(config.restoresMax, config.restoresPerPersonMax),
    restoreBudgetBytes: config.restoreBudgetBytes,
    restoreWindowBytes: Math.floor(config.restoreBudgetBytes / 8),
    downloadsMax: config.downloadsMax,
    downloadsPerPersonMax: Math.min(config.downloadsMax, config.downloadsPerPersonMax),
    downloadsPerTenantMax: Math.min(config.downloadsMax, config.downloadsPerTenantMax),
    stagingBytesMax: config.stagingBytesMax,
    stagingTenantBytesMax: Math.min(config.stagingBytesMax, config.stagingTenantBytesMax),
    stagingPersonBytesMax: Math.min(config.stagingBytesMax, config.stagingPersonBytesMax),
    stagedRestoreMs: config.stagedRestoreHours * 3_600_000,
  };
}

/** What a worker stages restores within. */
export function workerStagingSettings(config: Config): StagingSettings {
  return stagingSettings({ ...httpDefaults, ...restoreSettings(config) });
}

/** A worker's port: probes and metrics, for whoever runs it; so without TLS, and few connections. */
export function workerHttpSettings(config: Config, port: number): HttpSettings {
  const { host, metricsToken = null, proxies } = config;
  return { ...httpDefaults, host, port, tls: null, connectionsMax: 64, metricsToken, proxies };
}

function readTlsFiles(config: Config): TlsSettings {
  return {
    key: read('HOLDFAST_TLS_KEY', config.tlsKey),
    cert: read('HOLDFAST_TLS_CERTIFICATE', config.tlsCertificate),
  };
}

function read(variable: string, file: string | undefined): string {
  if (file === undefined) throw new Error(`${variable} is not set`);
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new Error(`${variable} names ${file}, which cannot be read: ${(cause as Error).message}`, { cause });
  }
}
