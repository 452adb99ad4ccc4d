/** `damage`: which files cannot be restored as of which moments. */
import { parseArgs } from 'node:util';
import { isShown } from '../../storage/archive/reading/shown-archive.ts';
import { vaultsWithDamage } from '../../storage/catalog/checking/damage.ts';
import type { Storage } from '../../storage/storage.ts';
import { listDevicesOfVault } from '../directory/devices/devices.ts';
import { findDevice } from '../directory/tenant-view.ts';
import { archiveDamage, type ShownDamagedFile } from '../reports/damage.ts';
import { withCatalog } from './open-catalog.ts';
import type { OperatorCommand, Say } from './operator-command.ts';
import { counted, momentInWords, printable } from './text.ts';

const usage = `Which files cannot be restored as of which moments, because blocks of theirs are damaged or gone; and which of
their moments are whole. A device heals what it still has with its next backup; the rest is here to be known.

usage: node server/main.ts damage [--device GUID] [--json]

  --device GUID   of one device; otherwise of all
  --json          JSON, a line for each file

Ends with 0 when nothing is damaged, with 1 when something is.`;

const pageFiles = 100;

export const damage: OperatorCommand = {
  usage,
  async run(args, say) {
    const { values } = parseArgs({
      args: [...args],
      options: { device: { type: 'string' }, json: { type: 'boolean', default: false } },
    });
    return withCatalog(async (storage) => {
      const devices =
        values.device === undefined ? await damagedDevices(storage) : [await named(storage, values.device)];
      let found = 0;
      for (const device of devices) found += await report(storage, device, values.json, say);
      if (found === 0 && !values.json) say('Nothing is known to be damaged.');
      return found === 0 ? 0 : 1;
    });
  },
};

interface Device {
  guid: string;
  deviceName: string;
  vault: number;
  archive: number;
}

async function named({ database }: Storage, guid: string): Promise<Device> {
  const device = await findDevice(database, null, guid);
  if (!device) throw new Error(`there is no device ${guid}; "node server/main.ts usage" lists them`);
  return device;
}

async function damagedDevices({ database }: Storage): Promise<Device[]> {
  const devices: Device[] = [];
  // Nothing is told of an archive that has expired; one that is asked for by name says so.
  for (const vault of await vaultsWithDamage(database))
    for (const device of await listDevicesOfVault(database, vault))
      if (await isShown(database, device)) devices.push(device);
  return devices;
}

/** @returns damaged files of the device; a vault's damage that is not looked up yet counts as one */
async function report(storage: Storage, device: Device, json: boolean, say: Say): Promise<number> {
  let found = 0;
  for (let after: number | null = 0; after !== null; ) {
    const page = await archiveDamage(storage, device, { after, limit: pageFiles });
    if (after === 0 && page.notLookedUp > 0) {
      found++;
      if (!json)
        say(
          `${printable(device.deviceName)} (${device.guid}): ${counted(page.notLookedUp, 'damaged block')} found in the vault, and not yet looked up whose they are`,
        );
    }
    for (const file of page.files) {
      if (!json && found === 0) say(`${printable(device.deviceName)} (${device.guid})`);
      found++;
      if (json) say(JSON.stringify({ device: { guid: device.guid, name: device.deviceName }, ...file }));
      else for (const line of inWords(file)) say(`  ${line}`);
    }
    after = page.next;
  }
  return found;
}

const momentsShown = 10;

function inWords({ path, latestDamaged, moments }: ShownDamagedFile): string[] {
  const states = moments.filter(({ deleted }) => !deleted);
  const [bad, whole] = [states.filter(({ damaged }) => damaged), states.filter(({ damaged }) => !damaged)];
  const list = (of: typeof states): string =>
    of.length === 0
      ? 'none'
      : `${of
          .slice(0, momentsShown)
          .map(({ committedAt }) => momentInWords(committedAt))
          .join(', ')}${of.length > momentsShown ? `, and ${of.length - momentsShown} older` : ''}`;
  return [
    `${printable(path)}${latestDamaged ? '  (the next backup heals it, if the device still has it so)' : ''}`,
    `  damaged  ${list(bad)}`,
    `  whole    ${list(whole)}`,
  ];
}
