import { expect, test } from '@jest/globals';
import { Problem } from '../../protocol/problems.ts';
import { openApiDocument } from '../../server/http/api/openapi.ts';
import { apiRoutes } from '../../server/http/api/routes.ts';
import { fieldOf } from '../document/fields.ts';
import { operationsOf } from '../document/operations.ts';
import type { Schema } from '../document/schema.ts';
import { saidOfOptions } from './at-fault.ts';
import { neighbourWith } from './neighbour.ts';
import type { GivenOption } from './options.ts';
import { problemInWords } from './output.ts';

const option = (name: string, schema: Schema, texts: string[] = [], flag = `--${name}`): GivenOption => ({
  field: fieldOf(schema, name.split('.'), false),
  in: 'body',
  flag,
  texts,
  isNull: false,
});
const text: Schema = { type: 'string' };
const options = [
  option('at', text, ['yesterday']),
  option('paths', { type: 'array', items: text }, ['/a', 'b c']),
  option('to.folder', text),
  option('name', text, ['']),
  option('why', text, ['x'.repeat(200)]),
  option('password', text, ['FILE'], '--password-file'),
  option('windows', { type: 'array', items: { type: 'object' } }, ['[{"days":[9]}]']),
  option('windows.0', text, ['x']),
  option('policy', { type: 'object' }),
  option('evenIfInUse', { type: 'boolean' }, [], '--even-if-in-use'),
];
const said = (message: string, field?: string, hasBody = false): string =>
  problemInWords(
    saidOfOptions(new Problem('conflict', message, field === undefined ? {} : { field }), options, {
      hasBody,
    }) as Problem,
  );

test.each([
  ['at', '--at yesterday'],
  ['paths.1', '--paths "b c"'],
  ['paths', '--paths'],
  ['to.folder', '--to.folder'],
  ['name', '--name ""'],
  ['why', `--why ${'x'.repeat(80)}...`],
  ['password', '--password-file FILE'],
  ['guid', 'guid'],
  ['guid.0', 'guid.0'],
  // What is inside of an option has none of its own: of two that it is inside of, the nearer one.
  ['windows.1.days.1', '1.days.1 in --windows [{"days":[9]}]'],
  ['windows.0.days.1', 'days.1 in --windows.0 x'],
  ['policy.deleted', 'deleted in --policy'],
  ['paths.1.name', '1.name in --paths'],
])('the field %s at fault is told as %s', (field, shown) => {
  expect(said('it is wrong', field)).toBe(`it is wrong (at fault: ${shown})`);
});

test('of a body that was given as one, fields are told as they stand in it', () => {
  expect(said('it is wrong', 'to.folder', true)).toBe('it is wrong (at fault: to.folder)');
  expect(said('it is wrong', 'policy.deleted', true)).toBe('it is wrong (at fault: policy.deleted)');
  expect(said('it is wrong', 'at', true)).toBe('it is wrong (at fault: --at yesterday)');
});

test('fields that a message names are told as options, and its other words are left', () => {
  expect(said('end it first, or set evenIfInUse')).toBe('end it first, or set --even-if-in-use true');
  expect(said('POST it as `password`, at once')).toBe('POST it as --password-file, at once');
  expect(said('give `other`, someThing or a name')).toBe('give `other`, someThing or a name');
});

test('of a field that only the command beside it has an option for, that command is named', () => {
  const operations = operationsOf(JSON.parse(JSON.stringify(openApiDocument(apiRoutes, { version: '1' }))));
  const operation = operations.find(({ method, path }) => `${method} ${path}` === 'GET /v1/restores/{id}/content')!;
  const told = (field: string): string => {
    const problem = new Problem('malformed_request', 'it is wrapped: POST it as `password`', { field });
    const invoked = { operation, operations, params: ['17'], output: 'x y.zip' };
    const said = saidOfOptions(problem, [], {
      hasBody: false,
      neighbourWith: (named) => neighbourWith(named, invoked),
    });
    return problemInWords(said as Problem);
  };
  expect(told('password')).toBe(
    "it is wrapped: POST it as --password-file\nThat is: npm run admin -- restores fetch-wrapped 17 --password-file FILE --output 'x y.zip'",
  );
  expect(told('other')).toBe('it is wrapped: POST it as `password` (at fault: other)');
});

test('scripts are told what the server said, and other errors stay what they are', () => {
  const problem = new Problem('conflict', 'set evenIfInUse', { field: 'at', more: 1 });
  expect((saidOfOptions(problem, options, { hasBody: false }) as Problem).toJSON()).toEqual(problem.toJSON());
  const error = new Error('x');
  expect(saidOfOptions(error, options, { hasBody: false })).toBe(error);
});
