/** The self-signed certificate of the embedded default: made once, kept, and pinned by agents by its SHA-256. */
import { X509Certificate } from 'node:crypto';
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { generate } from 'selfsigned';

export interface Certificate {
  /** PEM. */
  key: string;
  cert: string;
}

const years = 10;

/** The certificate kept in the folder; a new one when there is none. Changing it would lock every registered agent out. */
export async function ensureCertificate(folder: string): Promise<Certificate> {
  const certFile = join(folder, 'certificate.pem');
  const keyFile = join(folder, 'certificate-key.pem');
  if (!existsSync(certFile)) {
    const made = await makeCertificate();
    writeFileSync(keyFile, made.key, { mode: 0o600, flush: true });
    writeFileSync(`${certFile}.new`, made.cert, { mode: 0o644, flush: true });
    renameSync(`${certFile}.new`, certFile); // last, and whole: a start cut short begins again
  }
  return { key: readFileSync(keyFile, 'utf8'), cert: readFileSync(certFile, 'utf8') };
}

async function makeCertificate(): Promise<Certificate> {
  const notAfterDate = new Date();
  notAfterDate.setFullYear(notAfterDate.getFullYear() + years);
  const names = [...new Set(['localhost', hostname()])].filter((name) => /^[A-Za-z0-9.-]{1,253}$/.test(name));
  const made = await generate([{ name: 'commonName', value: 'Holdfast' }], {
    keyType: 'ec',
    curve: 'P-256',
    algorithm: 'sha256',
    notAfterDate,
    extensions: [
      { name: 'basicConstraints', cA: false, critical: true },
      { name: 'keyUsage', digitalSignature: true, critical: true },
      { name: 'extKeyUsage', serverAuth: true },
      {
        name: 'subjectAltName',
        altNames: [
          ...names.map((value) => ({ type: 2 as const, value })),
          { type: 7, ip: '127.0.0.1' },
          { type: 7, ip: '::1' },
        ],
      },
    ],
  });
  return { key: made.private, cert: made.cert };
}

/** SHA-256 of the certificate as it is sent (DER), in lower hex: what agents pin. The first one of a chain counts. */
export function certificateSha256(pem: string | Buffer): string {
  return new X509Certificate(pem).fingerprint256.replaceAll(':', '').toLowerCase();
}
