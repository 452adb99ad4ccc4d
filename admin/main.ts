/** The administrator's command, as a process. */
import { existsSync } from 'node:fs';
import { enableCompileCache } from 'node:module';
import { join } from 'node:path';
import { exitCodes } from './errors.ts';
import { adminHome, surroundings } from './state/home.ts';

// Whoever reads our output may stop reading (head, a closed terminal).
process.stdout.on('error', () => undefined);
process.stderr.on('error', () => undefined);
process.once('SIGINT', () => process.exit(exitCodes.interrupted));

const around = surroundings();
// Half of a short command's time is reading its own code. In the one folder that nobody else can write to.
if (existsSync(adminHome(around))) enableCompileCache(join(adminHome(around), 'code'));
const { run } = await import('./program.ts');

process.exitCode = await run(process.argv.slice(2), around);
