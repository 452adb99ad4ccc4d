/**
 * Whether a second factor is still missing: somebody's organization wants one, they have none, and came by a password. Asked
 * at the sign-in, at every refresh and with every request, so that it holds from the moment it is wanted, also for sessions
 * from before (docs/decisions/sign-in.md).
 */
import { effectiveSetting, type OwnSettings } from '../../settings/effective.ts';

/**
 * Of a row `o` of organizations: what it and those above it have said of signing in, from the top down, as JSON of
 * `OwnSettings[]`.
 */
export const ownSignInSettings = `(
  SELECT json_agg(json_build_object('organization', json_build_object('id', a.organization_id, 'name', a.name),
           'own', (SELECT coalesce(json_object_agg(s.name, json_build_object('value', s.value, 'locked', s.locked)), '{}')
                     FROM organization_settings s
                    WHERE s.organization_id = a.organization_id AND s.name IN ('signIn.twoFactor', 'signIn.password')))
         ORDER BY cardinality(a.path))
    FROM organizations a WHERE a.organization_id = ANY (o.path))`;

/**
 * Of rows `s` of sessions, `u` of users and `o` of organizations: the settings to ask, for LATERAL; no row: the session is no
 * user's, or came by an identity provider, or its user has a second factor.
 */
export const settingsWithoutSecondFactor = `(
  SELECT ${ownSignInSettings} AS settings
   WHERE u.user_id IS NOT NULL AND s.provider_id IS NULL
     AND NOT EXISTS (SELECT 1 FROM second_factors f WHERE f.user_id = u.user_id AND f.confirmed_at IS NOT NULL))`;

/** A setting that cannot be read is taken for yes. */
export function isSecondFactorWanted(settings: readonly OwnSettings[]): boolean {
  return effectiveSetting('signIn.twoFactor', settings).value ?? true;
}
