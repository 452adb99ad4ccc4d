/**
 * A user's sign-in with an organization's registration key. Whatever part is wrong, the answer is the same and takes
 * the same work, so that nobody learns which names or keys exist.
 */
import type { RegisterRequest } from '../../protocol/messages.ts';
import { Problem } from '../../protocol/problems.ts';
import type { Directory } from './directory.ts';
import { findForSignIn } from './people.ts';

export interface SignedIn {
  userId: number;
  tenantId: number;
}

export type SignInRequest = Pick<RegisterRequest, 'registrationKey' | 'userName' | 'password'>;

export function signInFailed(): Problem {
  return new Problem('sign_in_failed', 'the registration key, user name or password is not right');
}

/**
 * @param address where the request came from
 * @throws Problem sign_in_failed, too_many_requests
 */
export async function signIn(directory: Directory, request: SignInRequest, address: string): Promise<SignedIn> {
  const forgive = directory.signIns.attempt(request.userName, address);
  const { user, right } = await judge(directory, request).catch((error) => {
    forgive(); // it was not judged: the database was away, or too many waited
    throw error;
  });
  if (!user || !right || user.state !== 'active') throw signInFailed();
  forgive();
  return { userId: user.userId, tenantId: user.tenantId };
}

async function judge({ database, passwords }: Directory, request: SignInRequest) {
  const user = await findForSignIn(database, normalizeKey(request.registrationKey), request.userName);
  const right = await passwords.verify(request.password, user?.passwordHash ?? null);
  return { user, right };
}

/** Registration keys are typed off a screen: case and surrounding spaces do not matter. */
function normalizeKey(key: string): string {
  return key.trim().toUpperCase();
}
