/** The lines that a server prints when it is ready, and the files that say the same to programs on this machine. */
import { hostname } from 'node:os';
import { type Config, defaultDataFolderHere } from '../config.ts';
import { certificateSha256 } from '../embedded/certificate.ts';
import { firstStartFile, noteAddress, secretsIn } from '../embedded/first-start.ts';
import type { EmbeddedParts } from '../embedded/start.ts';
import type { HttpSettings } from '../http/settings.ts';

/** What an operator reads when the server is ready: where it is, whom to trust, where the data is, what to do next. */
export function announce(
  config: Config,
  settings: HttpSettings,
  { port }: { port: number },
  embedded: EmbeddedParts | null,
  say: (line: string) => void,
): void {
  const scheme = settings.tls ? 'https' : 'http';
  const anywhere = config.host === '0.0.0.0' || config.host === '::';
  const url = `${scheme}://${anywhere ? '127.0.0.1' : config.host.includes(':') ? `[${config.host}]` : config.host}:${port}`;
  const sha256 = settings.tls ? certificateSha256(settings.tls.cert) : null;
  const elsewhere = config.publicUrl ?? (anywhere ? `${scheme}://${hostname()}:${port}` : null);
  say(`Holdfast is ready, listening on ${url}${elsewhere ? ` (from other machines: ${elsewhere})` : ''}`);
  if (sha256) say(`  certificate SHA-256   ${sha256}`);
  if (!embedded) return;
  embedded.lock.describe({ url });
  noteAddress(config.data, { url, certificateSha256: sha256 });
  const setting = config.data === defaultDataFolderHere() ? '' : `HOLDFAST_DATA=${quoted(config.data)} `;
  say(`  data                  ${config.data}`);
  const file = firstStartFile(config.data);
  const whose = secretsIn(config.data);
  if (whose.administrator) {
    say('  administrator         looks after users, devices and their files: name, password and registration key in');
    say(`                        ${file}`);
  }
  if (whose.operator)
    say("  operator              runs the server, and can read nobody's files: name and password there, too");
  const trust = sha256 ? ` --fingerprint ${sha256}` : '';
  say(`  register a machine    npm run agent -- register --server ${elsewhere ?? url}${trust} --key KEY --user NAME`);
  say(`  back up a folder      ${setting}npm run agent -- backup PATH`);
}

function quoted(path: string): string {
  return /^[\w./-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`;
}
