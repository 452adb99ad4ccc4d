/**
 * What can go wrong between the agent and its server, beside the problems the server itself names
 * (protocol/problems.ts). Each message says what happened and, where a person must act, what to do.
 */

/** The server showed another certificate than the pinned one. Nothing was sent to it. Never retried. */
export class CertificateRefused extends Error {
  readonly code = 'certificate_refused';
  readonly shown: string;

  constructor(url: string, pinned: string, shown: string) {
    super(
      `${url} showed a certificate that is not the one this agent was registered with, so nothing was sent to it.\n` +
        `  expected SHA-256 ${pinned}\n  shown    SHA-256 ${shown}\n` +
        'If its administrator renewed the certificate, compare the new SHA-256 with them and register again with ' +
        '--fingerprint. If they did not, something between here and the server answers in its place.',
    );
    this.name = 'CertificateRefused';
    this.shown = shown;
  }
}

/** No connection, or one that broke, or an answer that stayed away. The same request can be sent again. */
export class ConnectionLost extends Error {
  readonly code = 'connection_lost';

  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'ConnectionLost';
  }
}

/** The other side is reachable and is not a Holdfast server of ours. Never retried. */
export class NotAServer extends Error {
  readonly code = 'not_a_server';

  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'NotAServer';
  }
}
