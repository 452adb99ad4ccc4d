/** What a role is. */
import type { Permission, Scope } from './permissions.ts';

export interface RoleFacts {
  /** The widest scope that it can be granted with. */
  scope: Scope;
  description: string;
  /** `*`: every permission there is, also of those that come later. */
  permissions: readonly Permission[] | '*';
}
