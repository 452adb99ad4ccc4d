/** The OpenAPI 3.1 document of the JSON API, made from the routes that are served and the schemas that validate. */
import { z } from 'zod';
import { problemTable } from '../../../protocol/problems.ts';
import { permissions } from '../../directory/roles/permissions.ts';
import { type ApiRoute, type ContentRoute, type LinesRoute, secondsOf, sufficing } from './route.ts';

type Json = Record<string, unknown>;

export interface DocumentOptions {
  version: string;
}

export function openApiDocument(routes: readonly ApiRoute[], { version }: DocumentOptions): Json {
  const paths: Record<string, Json> = {};
  for (const route of routes) {
    const path = route.path.replaceAll(/:(\w+)/g, '{$1}');
    paths[path] = { ...paths[path], [route.method.toLowerCase()]: operationOf(route) };
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Holdfast',
      version,
      description:
        'What administrators, help desks and their programs ask of a Holdfast server. Sign in with `POST /v1/sessions` (people) or `POST /v1/clients/token` (programs) and send the access token as `Authorization: Bearer`. A change may carry an `Idempotency-Key`: asked again with the same key within a day it is answered as the first time. What has a `version` is answered with an `ETag`; send it as `If-Match` to change only what you have seen. Errors are `application/problem+json` (RFC 9457): decide by `code`.',
    },
    servers: [{ url: '/' }],
    tags: [...new Set(routes.map((route) => route.tag))].map((name) => ({ name })),
    security: [{ token: [] }],
    paths,
    components: {
      securitySchemes: { token: { type: 'http', scheme: 'bearer' } },
      schemas: { Problem: problemSchema },
    },
  };
}

const problemSchema = {
  type: 'object',
  required: ['type', 'title', 'status', 'code', 'detail'],
  properties: {
    type: { type: 'string' },
    title: { type: 'string' },
    status: { type: 'integer' },
    code: { type: 'string', enum: Object.keys(problemTable) },
    detail: { type: 'string' },
    field: { type: 'string', description: 'The input at fault' },
  },
};

function operationOf(route: ApiRoute): Json {
  const status = ('status' in route && route.status) || 200;
  return {
    operationId: operationId(route),
    tags: [route.tag],
    summary: route.summary,
    description: [route.says, whoMay(route)].filter(Boolean).join('\n\n'),
    ...('anyone' in route.may && { security: [] }),
    parameters: [
      ...parametersOf(route.params, 'path'),
      ...parametersOf(route.query, 'query'),
      ...(route.kind === 'change' ? changeHeaders : []),
    ],
    ...('body' in route &&
      route.body && {
        requestBody: { required: true, content: bodyOf(route) },
      }),
    responses: {
      [status]: {
        description: 'Done',
        content: answerOf(route),
      },
      default: {
        description: 'A problem',
        content: { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } },
      },
    },
  };
}

function answerOf(route: ApiRoute): Json {
  if (route.kind !== 'content') return { [typeOf(route)]: { schema: schemaOf(route.answer, 'output') } };
  const { types } = route as ContentRoute;
  return Object.fromEntries(types.map((type) => [type, { schema: { type: 'string', format: 'binary' } }]));
}

function bodyOf(route: ApiRoute): Json {
  const { body } = route as { body: z.ZodType };
  // Zod leaves examples out of what it transforms, for they might be of its output. Ours are of what is sent.
  const { examples } = body.meta() ?? {};
  const schema = { ...schemaOf(body, 'input'), ...(examples !== undefined && { examples }) };
  const json = { 'application/json': { schema } };
  if (route.kind !== 'content') return json;
  const { properties = {}, ...rest } = schema as Json;
  const token = { type: 'string', description: 'The access token, where there is no Authorization' };
  const form = { ...rest, properties: { ...(properties as Json), access_token: token } };
  return { ...json, 'application/x-www-form-urlencoded': { schema: form } };
}

const typeOf = (route: Exclude<ApiRoute, ContentRoute>): string =>
  route.kind === 'lines' ? ((route as LinesRoute).type ? 'text/plain' : 'application/x-ndjson') : 'application/json';

const header = (name: string, description: string): Json => ({
  name,
  in: 'header',
  required: false,
  description,
  schema: { type: 'string' },
});

const changeHeaders: Json[] = [
  header(
    'Idempotency-Key',
    'Of your choosing; the same for a repetition. Fields that are `writeOnly` make no other request of it: a new secret needs a new key',
  ),
  header('If-Match', 'The ETag that the change is made from'),
];

/** In words, for the document and the page of roles. */
export function whoMay({ may }: ApiRoute): string {
  if ('anyone' in may) return `For anyone: ${may.anyone}`;
  if ('operator' in may) return 'For those who run the server.';
  if ('signedIn' in may) return 'For whoever is signed in, about themselves.';
  const listing = 'of' in may ? ', and shows what that reaches' : '';
  const second =
    'second' in may
      ? secondsOf(may)
          .map(({ permission, when }) => ` and${when ? ' (for some requests)' : ''} \`${permission}\``)
          .join('')
      : '';
  const or =
    'or' in may
      ? sufficing(may)
          .slice(1)
          .map((each) => ` or \`${each}\``)
          .join('')
      : '';
  return `Needs \`${may.permission}\`${or}${second}${listing}: ${permissions.get(may.permission)!.allows}`;
}

/** As `getOrganizationsUsers`: unique, because method and path are. */
function operationId({ method, path }: ApiRoute): string {
  const words = path
    .split('/')
    .slice(2)
    .map((word) => word.replace(/^:/, 'by-'));
  return (
    method.toLowerCase() +
    words.map((word) => word.replaceAll(/(?:^|-)(\w)/g, (_, letter) => letter.toUpperCase())).join('')
  );
}

function parametersOf(schema: z.ZodObject | undefined, where: 'path' | 'query'): Json[] {
  if (!schema) return [];
  const { properties = {}, required = [] } = schemaOf(schema, 'input') as {
    properties?: Record<string, Json>;
    required?: string[];
  };
  return Object.entries(properties).map(([name, { description, ...property }]) => ({
    name,
    in: where,
    required: where === 'path' || required.includes(name),
    ...(description !== undefined && { description }),
    schema: property,
  }));
}

function schemaOf(schema: z.ZodType, io: 'input' | 'output'): Json {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io, unrepresentable: 'any', reused: 'inline' }) as Json;
  return rest;
}
