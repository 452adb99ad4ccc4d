/** The JSON API's document, and a page to browse it in: nothing of a tenant is in either, so anyone may read them. */
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import type Router from '@koa/router';
import { sha256 } from '../../../protocol/hashes.ts';
import { Problem } from '../../../protocol/problems.ts';
import { openApiDocument } from '../api/openapi.ts';
import type { ApiRoute } from '../api/route.ts';
import type { Context, RequestState } from '../deps.ts';

export const apiDocumentPath = '/v1/openapi.json';
export const apiPagePath = '/api';

/** Of the package; nothing else of it is served. */
const files: Readonly<Record<string, string>> = {
  'swagger-ui.css': 'text/css; charset=utf-8',
  'swagger-ui-bundle.js': 'text/javascript; charset=utf-8',
};

const page = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Holdfast: the API</title>
<link rel="stylesheet" href="${apiPagePath}/files/swagger-ui.css">
</head>
<body>
<div id="api"></div>
<script src="${apiPagePath}/files/swagger-ui-bundle.js"></script>
<script src="${apiPagePath}/files/show.js"></script>
</body>
</html>
`;

const show = `SwaggerUIBundle({ url: '${apiDocumentPath}', dom_id: '#api', deepLinking: true, validatorUrl: null });\n`;

const contentSecurityPolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

export function apiPageRoutes(router: Router<RequestState>, routes: readonly ApiRoute[]): void {
  let document = '';
  let etag = '';
  router.get(apiDocumentPath, (ctx) => {
    document ||= `${JSON.stringify(openApiDocument(routes, { version: '1' }))}\n`;
    etag ||= `"${sha256(Buffer.from(document)).toString('base64url', 0, 12)}"`;
    ctx.set('ETag', etag);
    if (ctx.get('if-none-match') === etag) {
      ctx.status = 304;
      return;
    }
    send(ctx, 'application/json', document);
  });
  router.get(apiPagePath, (ctx) => send(ctx, 'text/html; charset=utf-8', page));
  router.get(`${apiPagePath}/files/:file`, async (ctx) => {
    const { file = '' } = (ctx as unknown as { params: Record<string, string> }).params;
    if (file === 'show.js') return send(ctx, 'text/javascript; charset=utf-8', show);
    const type = Object.hasOwn(files, file) ? files[file] : undefined;
    if (!type) throw new Problem('not_found', 'there is no such file');
    const path = fileURLToPath(import.meta.resolve(`swagger-ui-dist/${file}`));
    send(ctx, type, createReadStream(path));
    ctx.length = (await stat(path)).size;
  });
}

function send(ctx: Context, type: string, body: string | NodeJS.ReadableStream): void {
  ctx.set('Content-Security-Policy', contentSecurityPolicy);
  ctx.set('X-Content-Type-Options', 'nosniff');
  ctx.set('Referrer-Policy', 'no-referrer');
  ctx.set('Cache-Control', 'max-age=300');
  ctx.body = body;
  ctx.set('Content-Type', type);
}
