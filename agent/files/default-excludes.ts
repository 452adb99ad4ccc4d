/**
 * What a backup leaves out unless told otherwise, with the reason for each. docs/excludes.md shows the same list.
 * Only what the system or a program makes again by itself, or what cannot be read back as a file. When in doubt a
 * file is backed up: `*.tmp`, `node_modules` and logs are not here, because for some people they are the only copy.
 */
import type { Platform } from './types.ts';

export interface DefaultExclude {
  pattern: string;
  why: string;
}

const everywhere: readonly DefaultExclude[] = [
  { pattern: '.holdfast-restore/', why: 'unfinished files of a restore' },
  { pattern: '.holdfast-restore-*.part', why: 'unfinished files of a restore' },
  { pattern: '.~lock.*#', why: 'says that LibreOffice has a document open' },
];

const chromiumCaches = '{Cache,Code Cache,GPUCache,DawnCache,GrShaderCache,ShaderCache}';

export const defaultExcludes: Record<Platform, readonly DefaultExclude[]> = {
  linux: [
    ...everywhere,
    { pattern: '/proc/', why: 'the kernel shows its state there; nothing is stored' },
    { pattern: '/sys/', why: 'the kernel shows its state there; nothing is stored' },
    { pattern: '/dev/', why: 'devices, made at every start' },
    { pattern: '/run/', why: 'state of running programs, empty at every start' },
    { pattern: '/tmp/', why: 'temporary files, emptied at every start' },
    { pattern: '/var/cache/', why: 'caches that programs fill again' },
    { pattern: '/swapfile', why: 'memory, not a file' },
    { pattern: '/swap.img', why: 'memory, not a file' },
    { pattern: '/swap/swapfile', why: 'memory, not a file' },
    { pattern: 'lost+found/', why: 'pieces that a file system check found' },
    { pattern: '~/.cache/', why: 'caches that programs fill again' },
    { pattern: '/home/*/.cache/', why: 'caches that programs fill again' },
    { pattern: '/root/.cache/', why: 'caches that programs fill again' },
    { pattern: '/home/*/.var/app/*/cache/', why: 'caches of Flatpak programs' },
    { pattern: '.local/share/Trash/', why: 'files that were thrown away' },
    { pattern: '.Trash-[0-9]*/', why: 'files that were thrown away, on other volumes' },
    { pattern: '.mozilla/firefox/*/cache2/', why: 'pages that the browser loads again' },
    {
      pattern: `.config/{google-chrome,chromium,microsoft-edge}/**/${chromiumCaches}/`,
      why: 'pages that the browser loads again',
    },
    { pattern: '.gvfs/', why: "other machines' files, shown here" },
  ],
  darwin: [
    ...everywhere,
    { pattern: '/dev/', why: 'devices, made at every start' },
    { pattern: '/System/Volumes/', why: 'the same files a second time: the volumes that / is joined from' },
    { pattern: '/private/tmp/', why: 'temporary files, emptied at every start' },
    { pattern: '/private/var/vm/', why: 'memory, not files' },
    { pattern: '/private/var/run/', why: 'state of running programs' },
    { pattern: '/private/var/folders/', why: 'caches and temporary files of each user' },
    { pattern: '/Library/Caches/', why: 'caches that programs fill again' },
    { pattern: '~/Library/Caches/', why: 'caches that programs fill again' },
    { pattern: '/Users/*/Library/Caches/', why: 'caches that programs fill again' },
    { pattern: '/Users/*/Library/Containers/*/Data/Library/Caches/', why: 'caches that programs fill again' },
    {
      pattern: `/Users/*/Library/Application Support/{Google/Chrome,Chromium,Microsoft Edge}/**/${chromiumCaches}/`,
      why: 'pages that the browser loads again',
    },
    { pattern: '/Users/*/.Trash/', why: 'files that were thrown away' },
    { pattern: '.Trashes/', why: 'files that were thrown away, on other volumes' },
    { pattern: '.Spotlight-V100/', why: 'the search index, made again by itself' },
    { pattern: '.fseventsd/', why: 'the journal of changes of one volume' },
    { pattern: '.DocumentRevisions-V100/', why: 'a database of one volume that cannot be restored by copying' },
    { pattern: '.TemporaryItems/', why: 'temporary files' },
    { pattern: '.MobileBackups/', why: 'local snapshots of Time Machine' },
  ],
  win32: [
    ...everywhere,
    { pattern: '/*:/pagefile.sys', why: 'memory, not a file' },
    { pattern: '/*:/swapfile.sys', why: 'memory, not a file' },
    { pattern: '/*:/hiberfil.sys', why: 'memory, not a file' },
    { pattern: '/*:/DumpStack.log.tmp', why: 'held open by the system' },
    { pattern: '/*:/$Recycle.Bin/', why: 'files that were thrown away' },
    { pattern: '/*:/System Volume Information/', why: 'snapshots and indexes of one volume' },
    { pattern: '/*:/$WinREAgent/', why: 'left by updates of Windows' },
    { pattern: '/*:/Config.Msi/', why: 'left by installations' },
    { pattern: '/*:/Windows/Temp/', why: 'temporary files' },
    { pattern: '/*:/Windows/SoftwareDistribution/Download/', why: 'updates of Windows, downloaded again' },
    { pattern: '/*:/Users/*/AppData/Local/Temp/', why: 'temporary files' },
    { pattern: '/*:/Users/*/AppData/Local/CrashDumps/', why: 'memory of programs that failed' },
    { pattern: '/*:/Users/*/AppData/Local/Microsoft/Windows/INetCache/', why: 'pages that the browser loads again' },
    { pattern: '/*:/Users/*/AppData/Local/Microsoft/Windows/WebCache/', why: 'pages that the browser loads again' },
    {
      pattern: '/*:/Users/*/AppData/Local/Mozilla/Firefox/Profiles/*/cache2/',
      why: 'pages that the browser loads again',
    },
    {
      pattern: `/*:/Users/*/AppData/Local/{Google/Chrome,Chromium,Microsoft/Edge}/User Data/**/${chromiumCaches}/`,
      why: 'pages that the browser loads again',
    },
    { pattern: '~$*', why: 'says that an Office document is open' },
  ],
};
