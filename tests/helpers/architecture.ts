/**
 * What the source files say of themselves, read from their syntax trees: what each imports, where the environment is
 * read, where SQL is written. Comments and strings that look like code do not count, whatever they say.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, posix } from 'node:path';
import { parseSync } from '@swc/core';

export interface SourceFile {
  /** From the project's root, with slashes. */
  path: string;
  text: string;
}

export interface Facts {
  path: string;
  /** Files of ours, from the root, and packages ('node:fs', 'pg', '@aws-sdk/client-s3'), whichever way imported. */
  imports: string[];
  /** Those of them that are there when the program runs: not those of types. */
  valueImports: string[];
  readsEnvironment: boolean;
  /** The first words of texts that are SQL statements. */
  sql: string[];
}

interface Node {
  type?: string;
  [key: string]: unknown;
}

// Upper-case verbs followed by what follows them in SQL only: prose and HTTP methods are not taken for statements.
const sqlShape =
  /^\s*(?:SELECT\s[\s\S]*?\bFROM\s|SELECT\s+(?:[\d$'*(]|\w+\()|INSERT\s+INTO\s|UPDATE\s+[\w"]+(?:\s+\w+)?\s+SET\s|DELETE\s+FROM\s|WITH\s+\w+\s+AS\b|(?:CREATE|ALTER|DROP)\s+(?:TABLE|INDEX|UNIQUE|ROLE|DATABASE|SCHEMA)\b|LOCK\s+TABLE\s|TRUNCATE\s)/;

/** @throws Error when the file cannot be parsed */
export function factsOf({ path, text }: SourceFile): Facts {
  const facts: Facts = { path, imports: [], valueImports: [], readsEnvironment: false, sql: [] };
  const noteImport = (specifier: string, typeOnly = false): void => {
    const target = specifier.startsWith('.') ? posix.join(posix.dirname(path), specifier) : packageOf(specifier);
    facts.imports.push(target);
    if (!typeOnly) facts.valueImports.push(target);
  };
  const visit = (node: Node): void => {
    switch (node.type) {
      case 'ImportDeclaration':
      case 'ExportNamedDeclaration':
      case 'ExportAllDeclaration': {
        const source = textOf(node.source);
        if (source !== null) noteImport(source, node.typeOnly === true);
        // `import { env } from 'node:process'` is the environment by another name.
        if (source === 'node:process' || source === 'process') facts.readsEnvironment = true;
        break;
      }
      case 'CallExpression': {
        const callee = node.callee as Node;
        const [first] = node.arguments as { expression: Node }[];
        const loads = callee.type === 'Import' || (callee.type === 'Identifier' && callee.value === 'require');
        const specifier = textOf(first?.expression);
        if (loads && specifier !== null) noteImport(specifier);
        break;
      }
      // `import('pg').Pool` as a type.
      case 'TsImportType': {
        const specifier = textOf(node.argument);
        if (specifier !== null) noteImport(specifier, true);
        break;
      }
      case 'MemberExpression': {
        const [object, property] = [node.object as Node, node.property as Node];
        const name = property.type === 'Computed' ? textOf(property.expression) : property.value;
        if (object.type === 'Identifier' && object.value === 'process' && name === 'env') facts.readsEnvironment = true;
        break;
      }
      case 'VariableDeclarator': {
        // `const { env } = process`
        const [id, init] = [node.id as Node, node.init as Node | null];
        if (id.type === 'ObjectPattern' && init?.type === 'Identifier' && init.value === 'process') {
          for (const property of id.properties as Node[])
            if ((property.key as Node | undefined)?.value === 'env') facts.readsEnvironment = true;
        }
        break;
      }
      case 'StringLiteral':
        noteSql(node.value as string);
        break;
      case 'TemplateLiteral':
        noteSql((node.quasis as { raw: string }[]).map(({ raw }) => raw).join('1'));
        break;
    }
  };
  const noteSql = (text: string): void => {
    if (sqlShape.test(text)) facts.sql.push(text.trim().replace(/\s+/g, ' ').slice(0, 60));
  };
  const module = parseSync(text, { syntax: 'typescript', target: 'es2024' });
  walk(module as unknown as Node, visit);
  facts.imports = [...new Set(facts.imports)];
  return facts;
}

function walk(node: Node, visit: (node: Node) => void): void {
  if (typeof node.type === 'string') visit(node);
  for (const value of Object.values(node)) {
    if (Array.isArray(value)) {
      for (const each of value) if (each && typeof each === 'object') walk(each as Node, visit);
    } else if (value && typeof value === 'object') walk(value as Node, visit);
  }
}

/** A string known without running the program: a literal, or a template without anything put in. */
function textOf(node: unknown): string | null {
  const literal = node as Node | null | undefined;
  if (literal?.type === 'StringLiteral') return literal.value as string;
  const quasis = literal?.type === 'TemplateLiteral' ? (literal.quasis as { raw: string }[]) : [];
  return quasis.length === 1 ? quasis[0]!.raw : null;
}

function packageOf(specifier: string): string {
  if (specifier.startsWith('node:')) return specifier;
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
}

const notSource = new Set(['node_modules', '.git', 'coverage']);

/** Every TypeScript file below the folders, from the root. */
export function readSources(root: string, folders: readonly string[]): SourceFile[] {
  return folders.flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
      .map((entry) => posix.join(folderOf(root, entry.parentPath), entry.name))
      .filter((path) => !path.split('/').some((name) => notSource.has(name)))
      .map((path) => ({ path, text: readFileSync(join(root, path), 'utf8') })),
  );
}

/** Every folder below the folders, themselves included, that holds a file. */
export function readFolders(root: string, folders: readonly string[]): string[] {
  const found = folders.flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => folderOf(root, entry.parentPath)),
  );
  return [...new Set(found.flatMap((path) => upwards(path)))].sort();
}

function upwards(path: string): string[] {
  return path === '.' || path === '' ? [] : [path, ...upwards(dirname(path))];
}

function folderOf(root: string, path: string): string {
  return path.slice(root.length).replaceAll('\\', '/').replace(/^\//, '');
}
