/** Writes docs/configuration.md from the schema: `node server/commands/write-reference.ts`. */
import { writeFileSync } from 'node:fs';
import { settingsMarkdown } from './help.ts';

writeFileSync(new URL('../../docs/configuration.md', import.meta.url), settingsMarkdown());
