/** Devices, as administrators see and change them. */
import type { z } from 'zod';
import {
  blockDevice,
  deactivateDevice,
  deauthorizeDevice,
  type OfDevice,
  reactivateDevice,
  renameDevice,
  unblockDevice,
} from '../../../directory/devices/changes.ts';
import { setColdUntil } from '../../../directory/devices/cold.ts';
import { listDevices, listSkippedFiles, readDevice } from '../../../directory/devices/read.ts';
import { makeOwnRegistrationCode } from '../../../directory/devices/registering/own-codes.ts';
import {
  makeRegistrationCode,
  newRegistrationCode,
  revokeRegistrationCodes,
} from '../../../directory/devices/registering/registration-codes.ts';
import {
  OwnRegistrationCodeRequest,
  RegistrationCode,
  RegistrationCodeRequest,
  RevokedCodes,
} from '../../../directory/devices/registering/shapes.ts';
import {
  ColdUntilRequest,
  ColdUntilView,
  DeviceDetails,
  DevicePage,
  DeviceView,
  ListDevicesQuery,
  ListSkippedQuery,
  RenameDeviceRequest,
  SkippedPage,
} from '../../../directory/devices/shapes.ts';
import type { DeviceTarget } from '../../../directory/targets.ts';
import { byOf, type Caller } from '../callers.ts';
import { deviceInPath, deviceParams, userInPath, userParams } from '../finders.ts';
import { type ApiRoute, act, change, read, stateRoutes } from '../route.ts';

const tag = 'Devices';
const one = '/v1/devices/:guid';

const about = ({ target, expected }: { target: DeviceTarget; expected: number | null }): OfDevice => ({
  tenant: target.tenant,
  guid: target.id,
  expected,
});

const stateRoute = stateRoutes(
  { path: one, tag, params: deviceParams, target: deviceInPath, answer: DeviceView },
  about,
);

const own = { signedIn: true, kinds: ['user'] } as const;
const ofCaller = ({ tenant, id }: Caller) => ({ tenant: tenant!, user: id });
const drawCode = async () => ({ code: newRegistrationCode() });
const withCode = (answer: unknown, { code }: { code: string }) => ({ ...(answer as object), code });
const once = 'Shown once: a repeated request is answered without it.';

export const deviceRoutes: readonly ApiRoute[] = [
  read({
    path: '/v1/devices',
    tag,
    summary: 'List devices',
    says: 'With their health: judged by the last backup that was completed, not by the last sign of life.',
    may: { permission: 'computer.read', of: 'listing' },
    query: ListDevicesQuery,
    answer: DevicePage,
    read: ({ deps, caller, within, query }) =>
      listDevices(
        deps.directory.database,
        { tenant: caller.tenant!, within },
        query as z.output<typeof ListDevicesQuery>,
      ),
  }),
  read({
    path: one,
    tag,
    summary: 'Show a device',
    may: { permission: 'computer.read', target: deviceInPath },
    params: deviceParams,
    answer: DeviceDetails,
    read: ({ deps, target }) => readDevice(deps.directory.database, { tenant: target.tenant, guid: target.id }),
  }),
  read({
    path: `${one}/skipped`,
    tag,
    summary: 'List the files that the last run left out, and why',
    may: { permission: 'computer.read', target: deviceInPath },
    params: deviceParams,
    query: ListSkippedQuery,
    answer: SkippedPage,
    read: ({ deps, target, query }) =>
      listSkippedFiles(deps.directory.database, { tenant: target.tenant, guid: target.id }, query),
  }),
  change({
    method: 'PATCH',
    path: one,
    tag,
    summary: 'Rename a device',
    may: { permission: 'computer.update', target: deviceInPath },
    params: deviceParams,
    body: RenameDeviceRequest,
    answer: DeviceView,
    change: (tx, request) => renameDevice(tx, request.by, { ...about(request), ...request.body }),
  }),
  stateRoute('block', 'computer.update', blockDevice, {
    summary: 'Block a device',
    says: 'Its backups go on; it restores nothing.',
  }),
  stateRoute('unblock', 'computer.update', unblockDevice, {
    summary: 'Unblock a device',
    says: 'Unless something above it is blocked.',
  }),
  stateRoute('deauthorize', 'computer.update', deauthorizeDevice, {
    summary: 'Sign a device out',
    says: 'It backs up again when its user has signed it in again.',
  }),
  stateRoute('deactivate', 'computer.delete', deactivateDevice, {
    summary: 'Deactivate a device',
    says: 'It backs up no more, and its archive goes cold until its date.',
  }),
  stateRoute('reactivate', 'computer.delete', reactivateDevice, {
    summary: 'Reactivate a device',
    says: 'Its archive comes back from the cold, unless something else keeps it there.',
  }),
  change({
    method: 'PUT',
    path: `${one}/cold-until`,
    tag,
    summary: 'Set until when the cold archive of a device is kept',
    may: { permission: 'computer.delete', target: deviceInPath },
    params: deviceParams,
    body: ColdUntilRequest,
    answer: ColdUntilView,
    change: async (tx, { by, target, body }) => {
      const until = await setColdUntil(tx, by, { tenant: target.tenant, guid: target.id, until: new Date(body.until) });
      return { coldUntil: until.toISOString() };
    },
  }),
  act({
    method: 'POST',
    path: '/v1/me/registration-codes',
    tag,
    summary: 'Make a code to register a device of yours with',
    says: 'Being signed in is not enough: your password is asked for, and the code of your second factor if you have one. Good for one device, for an hour at most, and only as long as the session you make it in. Shown once.',
    may: own,
    body: OwnRegistrationCodeRequest,
    status: 201,
    answer: RegistrationCode,
    act: ({ deps, caller, body, address }) => {
      const { name: userName, session, actor } = caller!;
      const asker = { ...ofCaller(caller!), userName, session: session!, actor: actor! };
      return makeOwnRegistrationCode(deps.directory, byOf(caller!, address), asker, body, address);
    },
  }),
  change({
    method: 'DELETE',
    path: '/v1/me/registration-codes',
    tag,
    summary: 'Revoke your registration codes that were not used',
    may: own,
    answer: RevokedCodes,
    change: (tx, { by, caller }) => revokeRegistrationCodes(tx, by, ofCaller(caller)),
  }),
  change({
    method: 'POST',
    path: '/v1/users/:user/registration-codes',
    tag,
    summary: 'Make a code to register a device of a user with, instead of their password',
    says: `Give it to them by a way that is theirs alone: whoever has it gets a device that opens their backups. Not for a user who may do what you may not; for one with a second factor, \`twofactorauth.configure\` is needed too; not for yourself. ${once}`,
    may: { permission: 'user.update', target: userInPath },
    params: userParams,
    body: RegistrationCodeRequest,
    status: 201,
    answer: RegistrationCode.partial({ code: true }),
    prepare: drawCode,
    change: (tx, { by, caller, target, body }, { code }) =>
      makeRegistrationCode(
        tx,
        by,
        { tenant: target.tenant, user: target.id, actor: caller.actor!, session: null, ...body },
        code,
      ),
    reveal: withCode,
  }),
  change({
    method: 'DELETE',
    path: '/v1/users/:user/registration-codes',
    tag,
    summary: 'Revoke the registration codes of a user that were not used',
    may: { permission: 'user.update', target: userInPath },
    params: userParams,
    answer: RevokedCodes,
    change: (tx, { by, target }) => revokeRegistrationCodes(tx, by, { tenant: target.tenant, user: target.id }),
  }),
];
