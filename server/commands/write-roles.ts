/** Writes docs/roles.md from the roles: `node server/commands/write-roles.ts`. */
import { writeFileSync } from 'node:fs';
import { rolesMarkdown } from './roles-page.ts';

writeFileSync(new URL('../../docs/roles.md', import.meta.url), rolesMarkdown());
