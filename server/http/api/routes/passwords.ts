/** Passwords, invitations and second factors: one's own, and those of the people one administers. */
import { z } from 'zod';
import type { Transaction } from '../../../../storage/catalog/database.ts';
import { readSignInFailures, unlockUser } from '../../../directory/sign-in/lockout.ts';
import {
  acceptInvitation,
  inviteUser,
  readInvitation,
} from '../../../directory/sign-in/password-changes/invitations.ts';
import {
  changePassword,
  drawOneTimePassword,
  resetPassword,
} from '../../../directory/sign-in/password-changes/password-changes.ts';
import {
  AcceptInvitationRequest,
  ChangePasswordRequest,
  InvitationAnswer,
  InvitationRequest,
  InvitationView,
  OneTimePassword,
} from '../../../directory/sign-in/password-changes/shapes.ts';
import {
  beginSecondFactor,
  confirmSecondFactor,
  drawSecondFactor,
  readSecondFactorState,
  removeSecondFactor,
  renewRecoveryCodes,
  resetSecondFactor,
} from '../../../directory/sign-in/second-factor/second-factor.ts';
import {
  BegunSecondFactor,
  CodeRequest,
  RecoveryCodes,
  SecondFactorView,
} from '../../../directory/sign-in/second-factor/shapes.ts';
import { SignInFailuresView } from '../../../directory/sign-in/sessions/sign-in-shapes.ts';
import { newToken } from '../../../directory/sign-in/tokens.ts';
import type { UserTarget } from '../../../directory/targets.ts';
import { byOf, type Caller } from '../callers.ts';
import { userInPath, userParams } from '../finders.ts';
import { type ApiRoute, act, change, read } from '../route.ts';
import { ownerOf } from './sessions.ts';

const tag = 'Sign-in';
const ofUsers = 'Users';
const done = z.strictObject({});
const once = 'Shown once: a repeated request is answered without it.';
const people = ['user', 'operator'] as const;
const own = { signedIn: true, even: 'limited', kinds: people } as const;

const ofCaller = ({ tenant, id }: Caller) => ({ tenant: tenant!, user: id });
const of = ({ tenant, id }: UserTarget) => ({ tenant, user: id });

export const passwordRoutes: readonly ApiRoute[] = [
  act({
    method: 'POST',
    path: '/v1/me/password',
    tag,
    summary: 'Change your password',
    says: 'Your other sessions end.',
    may: { signedIn: true, kinds: ['user'] },
    body: ChangePasswordRequest,
    answer: z.strictObject({ endedSessions: z.int() }),
    act: ({ deps, caller, body, address }) =>
      changePassword(
        deps.directory,
        byOf(caller!, address),
        { ...ofCaller(caller!), session: caller!.session!, ...body },
        address,
      ),
  }),
  read({
    path: '/v1/me/second-factor',
    tag,
    summary: 'Show whether you have a second factor',
    may: own,
    answer: SecondFactorView,
    read: ({ deps, caller }) => readSecondFactorState(deps.directory.database, ownerOf(caller)),
  }),
  change({
    method: 'POST',
    path: '/v1/me/second-factor',
    tag,
    summary: 'Begin a second factor',
    says: `Put the secret into a generator of codes, and confirm with one. ${once}`,
    may: own,
    status: 201,
    answer: BegunSecondFactor.partial(),
    prepare: ({ deps, caller }) => drawSecondFactor(deps.directory, ownerOf(caller), caller.name),
    change: async (tx, { by, caller }, drawn) => {
      await beginSecondFactor(tx, by, ownerOf(caller), drawn);
      return {};
    },
    reveal: (_, { shown }) => shown,
  }),
  act({
    method: 'POST',
    path: '/v1/me/second-factor/confirm',
    tag,
    summary: 'Put your second factor into force',
    says: 'Answers recovery codes, each good once in the place of a code. Your other sessions that came by a password end.',
    may: own,
    body: CodeRequest,
    answer: RecoveryCodes,
    act: ({ deps, caller, body, address }) =>
      confirmSecondFactor(
        deps.directory,
        byOf(caller!, address),
        { of: ownerOf(caller!), session: caller!.session!, ...body },
        address,
      ),
  }),
  act({
    method: 'POST',
    path: '/v1/me/second-factor/recovery-codes',
    tag,
    summary: 'Get new recovery codes',
    says: 'Those before are good no more.',
    may: { signedIn: true, kinds: people },
    body: CodeRequest,
    answer: RecoveryCodes,
    act: ({ deps, caller, body, address }) =>
      renewRecoveryCodes(deps.directory, byOf(caller!, address), { of: ownerOf(caller!), ...body }, address),
  }),
  act({
    method: 'POST',
    path: '/v1/me/second-factor/remove',
    tag,
    summary: 'Take your second factor away',
    says: 'Your other sessions end.',
    may: { signedIn: true, kinds: people },
    body: CodeRequest,
    answer: done,
    act: async ({ deps, caller, body, address }) => {
      const request = { of: ownerOf(caller!), session: caller!.session!, ...body };
      await removeSecondFactor(deps.directory, byOf(caller!, address), request, address);
      return {};
    },
  }),
  act({
    method: 'POST',
    path: '/v1/invitations/show',
    tag,
    summary: 'Show what an invitation is for',
    may: { anyone: 'the invitation is the sign-in.' },
    body: InvitationRequest,
    answer: InvitationView,
    act: ({ database, body }) => readInvitation(database, body.token),
  }),
  act({
    method: 'POST',
    path: '/v1/invitations/accept',
    tag,
    summary: 'Set your first password',
    may: { anyone: 'the invitation is the sign-in.' },
    body: AcceptInvitationRequest,
    answer: z.strictObject({ tenant: z.int(), userName: z.string() }),
    act: ({ deps, body, address }) => acceptInvitation(deps.directory, body, address),
  }),
  change({
    method: 'POST',
    path: '/v1/users/:user/invitation',
    tag: ofUsers,
    summary: 'Invite a user who has no password yet',
    says: `Give them the token by a way that is theirs alone; an invitation before this one is good no more. ${once}`,
    may: { permission: 'user.create', target: userInPath },
    params: userParams,
    status: 201,
    answer: InvitationAnswer.partial({ token: true }),
    prepare: async () => ({ token: newToken() }),
    change: (tx, { by, caller, target }, { token }) =>
      inviteUser(tx, by, { ...of(target), actor: caller.actor! }, token),
    reveal: (answer, { token }) => ({ ...(answer as object), token }),
  }),
  change({
    method: 'POST',
    path: '/v1/users/:user/password-reset',
    tag: ofUsers,
    summary: 'Give a user a one-time password',
    says: `With it they set one of their own at the next sign-in. Their sessions end. ${once}`,
    may: { permission: 'user.update', target: userInPath },
    params: userParams,
    answer: OneTimePassword.partial({ password: true }),
    prepare: ({ deps }) => drawOneTimePassword(deps.directory),
    change: (tx, { by, caller, target }, drawn) =>
      resetPassword(tx, by, { ...of(target), actor: caller.actor! }, drawn),
    reveal: (answer, { password }) => ({ ...(answer as object), password }),
  }),
  change({
    method: 'POST',
    path: '/v1/users/:user/second-factor/reset',
    tag: ofUsers,
    summary: 'Take the second factor of a user away',
    says: 'Their sessions end. Where one is needed, they set up another at the next sign-in.',
    may: { permission: 'twofactorauth.configure', target: userInPath },
    params: userParams,
    answer: done,
    change: async (tx: Transaction, { by, target }) => {
      await resetSecondFactor(tx, by, of(target));
      return {};
    },
  }),
  read({
    path: '/v1/users/:user/sign-in-failures',
    tag: ofUsers,
    summary: 'Show whether wrong passwords keep a user waiting',
    may: { permission: 'user.read', target: userInPath },
    params: userParams,
    answer: SignInFailuresView,
    read: async ({ deps, target }) => {
      const failures = await readSignInFailures(deps.directory.database, target.id);
      return {
        items: failures.map(({ lastAt, lockedUntil, ...each }) => ({
          ...each,
          lastAt: lastAt.toISOString(),
          lockedUntil: lockedUntil?.toISOString() ?? null,
        })),
      };
    },
  }),
  change({
    method: 'POST',
    path: '/v1/users/:user/unlock',
    tag: ofUsers,
    summary: 'Let a user whom wrong passwords keep waiting sign in again',
    may: { permission: 'user.update', target: userInPath },
    params: userParams,
    answer: done,
    change: async (tx, { by, target }) => {
      await unlockUser(tx, by, of(target));
      return {};
    },
  }),
];
