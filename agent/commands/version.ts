/** The agent's version: that of the package it lies in. */
import { readFileSync } from 'node:fs';

export function agentVersion(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return String((JSON.parse(text) as { version?: unknown }).version ?? '0');
}
