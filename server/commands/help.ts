/** What the program says about itself. The table of settings comes from the schema that checks them. */
import { readFileSync } from 'node:fs';
import { settingsReference } from '../config.ts';

export const commandTable = {
  all: 'server and worker in one process; with --embedded everything else is brought along',
  api: 'the server that agents talk to',
  worker: 'the jobs in the background',
  migrate: "bring the database's schema up to date",
  'check-objects': 'try out whether a bucket or folder is fit to hold backups',
  adopt: 'after restoring or copying the database: say which catalog the bucket belongs to (adopt --help)',
  verify: 'read every stored byte now and mark what is damaged (verify --help)',
  recount: 'count references anew, and mend what is wrong (recount --help)',
  retention: 'what a device keeps of its files, and what would be deleted (retention --help)',
  usage: 'what users and organizations hold (usage --help)',
  alerts: 'what a person has to look at, and the word that you have (alerts --help)',
  damage: 'which files cannot be restored as of which moments (damage --help)',
  audit: 'whether the audit log is what was written (audit --help)',
  operators: 'those who run the server: list, add, block, another password (operators --help)',
  keys: 'the keys that seal vault keys and other secrets: list, rotate, seal anew (keys --help)',
  seed: 'fill an empty catalog with made-up backups, to measure with (seed --help)',
  health: 'ask the server on this machine whether it lives (for containers)',
  config: 'print every setting, what it means and its default',
} as const;

export type Command = keyof typeof commandTable;

export function helpText(): string {
  const width = Math.max(...Object.keys(commandTable).map((name) => name.length));
  const commands = Object.entries(commandTable).map(([name, says]) => `  ${name.padEnd(width)}  ${says}`);
  return [
    'Holdfast, a backup destination of your own.',
    '',
    'usage: node server/main.ts COMMAND [--embedded]',
    '       npm start                      (the same as: all --embedded)',
    '',
    ...commands,
    '',
    '  --help, --version',
    '',
    'Settings come from the environment (HOLDFAST_...) and from the JSON file that HOLDFAST_CONFIG names.',
    'Exit codes: 0 stopped as asked, 1 failed, 2 wrong usage or settings.',
  ].join('\n');
}

export function versionText(): string {
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  return `holdfast ${version} (node ${process.versions.node})`;
}

/** For a terminal. */
export function settingsText(): string {
  const entries = settingsReference().map(
    ({ variable, says, expected, default: fallback }) =>
      `${variable}\n    ${says}\n    ${expected}; default: ${fallback}`,
  );
  return ['Every setting, as a variable of the environment.', '', ...entries].join('\n');
}

/** docs/configuration.md. */
export function settingsMarkdown(): string {
  const cell = (text: string): string => text.replaceAll('|', '\\|');
  const rows = settingsReference().map(
    ({ variable, fileName, says, expected, default: fallback }) =>
      `| \`${variable}\` | \`${fileName}\` | ${cell(says)} | ${cell(expected)} | ${cell(fallback)} |`,
  );
  return `# Configuration

<!-- Generated from server/config.ts by server/commands/write-reference.ts; a test says when it is not current. -->

Settings come from the environment, and from the JSON file that \`HOLDFAST_CONFIG\` names; the environment wins. They are
checked as a whole before anything starts, and all mistakes are told at once. \`node server/main.ts config\` prints this table.

| variable | in the file | what it is | expected | default |
|---|---|---|---|---|
${rows.join('\n')}

The data folder of the embedded default, unless \`HOLDFAST_DATA\` says otherwise: \`/var/lib/holdfast\` when started by root;
else \`$XDG_DATA_HOME/holdfast\` or \`~/.local/share/holdfast\` on Linux, \`~/Library/Application Support/Holdfast\` on macOS,
\`%LOCALAPPDATA%\\Holdfast\` on Windows.

Without \`--embedded\` these must be set: \`HOLDFAST_DATABASE_URL\`; \`HOLDFAST_OBJECTS_FOLDER\`, or \`HOLDFAST_OBJECTS=s3\` with
\`HOLDFAST_S3_BUCKET\`; \`HOLDFAST_KEY_FILE\`; and \`HOLDFAST_TLS_CERTIFICATE\` with \`HOLDFAST_TLS_KEY\`, or \`HOLDFAST_TLS=off\`.
With \`--embedded\` each of them is brought along unless it is set.
`;
}
