-- Up Migration
-- Who may look at and decide for a tenant, until roles say it more finely; and the retention policy, which an
-- organization hands down to those below it and to their devices, unless they have one of their own.
ALTER TABLE users ADD administrator boolean NOT NULL DEFAULT false;
UPDATE users u SET administrator = true
 WHERE NOT EXISTS (SELECT 1 FROM users other WHERE other.tenant_id = u.tenant_id AND other.user_id < u.user_id);
ALTER TABLE organizations ADD retention jsonb;
ALTER TABLE devices ADD retention jsonb;
