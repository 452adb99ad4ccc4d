import { expect, test } from '@jest/globals';
import { attachment } from './content-answers.ts';

test.each([
  ['laptop 2026-01-02.zip', 'attachment; filename="laptop 2026-01-02.zip"'],
  ['Änn.zip', `attachment; filename="_nn.zip"; filename*=UTF-8''%C3%84nn.zip`],
  ["it's (50%).tar", `attachment; filename="it's (50_).tar"; filename*=UTF-8''it%27s%20%2850%25%29.tar`],
  ['a"b\r\nSet-Cookie: c/..\\d.zip', 'attachment; filename="a_b__Set-Cookie_ c_.._d.zip"'],
  ['..hidden.zip', 'attachment; filename="hidden.zip"'],
  ['.zip', 'attachment; filename="zip"'],
  ['  ', 'attachment; filename="restore"'],
  ['\ud800.zip', `attachment; filename="_.zip"; filename*=UTF-8''%EF%BF%BD.zip`],
  ['\u202Egpj.zip', 'attachment; filename="_gpj.zip"'],
  [`${'x'.repeat(151)}.zip`, `attachment; filename="${'x'.repeat(150)}.zip"`],
])('%j is offered as %s', (name, header) => {
  expect(attachment(name)).toBe(header);
});
