/**
 * Those who run the server: the first made at the first start, others by one of them. At least one stays active, or nobody
 * could make another. How they sign in: sessions/begin.ts.
 *
 * Lock order: all operators by id (there are a handful), everything else, the log's head.
 */
import { z } from 'zod';
import { Problem } from '../../../../protocol/problems.ts';
import { type Database, statement, type Transaction } from '../../../../storage/catalog/database.ts';
import type { By } from '../../audit/act.ts';
import { record } from '../../audit/record.ts';
import type { Directory } from '../../directory.ts';
import { assertExpected } from '../../users/locks.ts';
import { pageOf, readCursor } from '../../users/pages.ts';
import { line } from '../../users/shapes.ts';
import { operatorAccountKey } from '../accounts.ts';
import { forgetAllFailures } from '../lockout.ts';
import { assertPassword } from '../password-changes/password-rules.ts';
import { endAll } from '../sessions/sessions.ts';

export const CreateOperatorRequest = z.strictObject({
  name: line(254),
  password: z.string().min(1).max(1_024).meta({ description: 'They change it when they sign in, with `newPassword`.' }),
});

export const OperatorView = z.strictObject({
  id: z.int(),
  name: z.string(),
  state: z.enum(['active', 'blocked']),
  secondFactor: z.boolean().meta({ description: 'A generator of codes is in force.' }),
  createdAt: z.iso.datetime(),
  version: z.int(),
});

export const OperatorPage = z.strictObject({ items: z.array(OperatorView), next: z.string().nullable() });

const columns = `operator_id AS id, name, state, created_at AS "createdAt", version,
  EXISTS (SELECT 1 FROM operator_second_factors f
           WHERE f.operator_id = operators.operator_id AND f.confirmed_at IS NOT NULL) AS "secondFactor"`;

const sql = {
  insertFirst: statement(
    'directory.insertFirstOperator',
    `INSERT INTO operators (name, password_hash) SELECT $1, $2 WHERE NOT EXISTS (SELECT 1 FROM operators)
         ON CONFLICT (lower(name)) DO NOTHING RETURNING operator_id AS id`,
  ),
  insert: statement(
    'directory.insertOperator',
    `INSERT INTO operators (name, password_hash) VALUES ($1, $2) ON CONFLICT (lower(name)) DO NOTHING RETURNING ${columns}`,
  ),
  any: statement('directory.anyOperator', 'SELECT 1 FROM operators LIMIT 1'),
  list: statement(
    'directory.listOperators',
    `SELECT ${columns} FROM operators WHERE operator_id > $1 ORDER BY operator_id LIMIT $2`,
  ),
  lockAll: statement(
    'directory.lockOperators',
    `SELECT ${columns} FROM operators ORDER BY operator_id FOR NO KEY UPDATE`,
  ),
  setPassword: statement(
    'directory.setOperatorPassword',
    'UPDATE operators SET password_hash = $2, password_changed_at = now(), version = version + 1 WHERE operator_id = $1',
  ),
  setState: statement(
    'directory.setOperatorState',
    `UPDATE operators SET state = $2, version = version + 1 WHERE operator_id = $1 RETURNING ${columns}`,
  ),
};

export type Operator = z.infer<typeof OperatorView>;
type OperatorRow = Omit<Operator, 'createdAt'> & { createdAt: Date };

const server: By = { tenant: null, party: { kind: 'server', id: null, name: 'Holdfast' }, address: null };

/**
 * Makes the first operator, unless there is one. The caller has written the password down before.
 * @returns whether it was made now
 */
export async function createFirstOperator(
  { database, passwords }: Directory,
  { name, password }: { name: string; password: string },
): Promise<boolean> {
  if (await isOperatorThere(database)) return false;
  const hash = await passwords.hash(password);
  return database.transaction(async (tx) => {
    const [row] = await tx.query<{ id: number }>(sql.insertFirst, [name, hash]);
    if (row) await recordOperator(tx, server, 'operator.create', { id: row.id, name });
    return row !== undefined;
  });
}

/** Whether there is an operator, blocked or not. */
export async function isOperatorThere(db: Database | Transaction): Promise<boolean> {
  return (await db.query(sql.any)).length > 0;
}

/** @returns the hash of a new operator's password. @throws Problem out_of_bounds { field: 'password' } */
export async function prepareOperator(
  { passwords }: Pick<Directory, 'passwords'>,
  { name, password }: z.infer<typeof CreateOperatorRequest>,
): Promise<string> {
  assertPassword(password, { userName: name, email: null, tenantName: null }, 'password');
  return passwords.hash(password);
}

/** @throws Problem conflict { field: 'name' } */
export async function createOperator(tx: Transaction, by: By, name: string, passwordHash: string): Promise<Operator> {
  const [row] = await tx.query<OperatorRow>(sql.insert, [name, passwordHash]);
  if (!row) throw new Problem('conflict', 'there is an operator of that name', { field: 'name' });
  await recordOperator(tx, by, 'operator.create', row);
  return viewOf(row);
}

export async function listOperators(
  db: Database | Transaction,
  { after, limit }: { after?: string | undefined; limit: number },
): Promise<z.infer<typeof OperatorPage>> {
  const rows = await db.query<OperatorRow>(sql.list, [readCursor(after), limit + 1]);
  return pageOf(rows, limit, { id: (row) => row.id, item: viewOf });
}

/**
 * Blocks an operator, whose sessions are refused from then on, or lifts it. As it is already: nothing changes.
 * @throws Problem not_found, precondition_failed; conflict when no active one would be left
 */
export async function setOperatorState(
  tx: Transaction,
  by: By,
  { operator, state, expected }: { operator: number; state: 'active' | 'blocked'; expected: number | null },
): Promise<Operator> {
  const all = await tx.query<OperatorRow>(sql.lockAll);
  const before = all.find(({ id }) => id === operator);
  if (!before) throw new Problem('not_found', 'there is no such operator');
  assertExpected(before.version, expected);
  if (before.state === state) return viewOf(before);
  if (!all.some((each) => each.state === 'active' && each !== before) && state === 'blocked')
    throw new Problem('conflict', 'no active operator would be left');
  const [row] = await tx.query<OperatorRow>(sql.setState, [operator, state]);
  await recordOperator(tx, by, state === 'blocked' ? 'operator.block' : 'operator.unblock', before);
  return viewOf(row!);
}

/**
 * Gives an operator another password, and ends their sessions. The hash was made before (`prepareOperator`).
 * @throws Problem not_found
 */
export async function setOperatorPassword(
  tx: Transaction,
  by: By,
  { operator, passwordHash }: { operator: number; passwordHash: string },
): Promise<void> {
  const before = (await tx.query<OperatorRow>(sql.lockAll)).find(({ id }) => id === operator);
  if (!before) throw new Problem('not_found', 'there is no such operator');
  await tx.query(sql.setPassword, [operator, passwordHash]);
  await endAll(tx, { operator }, null);
  await forgetAllFailures(tx, operatorAccountKey(operator));
  await recordOperator(tx, by, 'operator.password', before);
}

/** An act has no kind of target for operators: they are named in its details. */
function recordOperator(
  tx: Transaction,
  by: By,
  action: string,
  { id, name }: { id: number; name: string },
): Promise<void> {
  return record(tx, by, { action, target: null, organization: null, result: 'done', details: { operator: id, name } });
}

const viewOf = (row: OperatorRow): Operator => ({ ...row, createdAt: row.createdAt.toISOString() });
