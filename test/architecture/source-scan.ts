import { readFileSync, readdirSync } from 'node:fs';
import { join, posix } from 'node:path';
import ts from 'typescript';

/** One import of a file, in whatever form: static, type-only, re-export, dynamic, or in a type. */
export interface SourceImport {
  readonly line: number;
  /** As written: `../model/rule.js`, `node:net`, `pino`. */
  readonly specifier: string;
  /** The file it means, relative to src (`model/rule.ts`); undefined for packages and Node's modules. */
  readonly file?: string;
}

/** Something in a file that a rule may not like. */
export interface SourceTrait {
  readonly line: number;
  readonly kind: 'default export' | 'star export' | 'class extends' | 'enum' | 'namespace' | 'module state';
  readonly text: string;
}

export interface SourceFile {
  /** Relative to src, with forward slashes: `planes/userspace/listener.ts`. */
  readonly path: string;
  readonly lines: number;
  readonly imports: readonly SourceImport[];
  readonly traits: readonly SourceTrait[];
}

/** Reads every TypeScript file below a folder. */
export function scanFolder(folder: string): readonly SourceFile[] {
  const paths = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((path) => /\.tsx?$/.test(path))
    .map((path) => path.replaceAll('\\', '/'))
    .sort();
  return paths.map((path) => scanText(path, readFileSync(join(folder, path), 'utf8'), paths));
}

/** Reads one file's text. `paths`: files beside it; what is imported as `.js` may be one that ends in .tsx or .d.ts. */
export function scanText(path: string, text: string, paths: readonly string[] = []): SourceFile {
  const tree = ts.createSourceFile(path, text, ts.ScriptTarget.Latest, true);
  const imports: SourceImport[] = [];
  const traits: SourceTrait[] = [];
  const lineOf = (node: ts.Node): number => tree.getLineAndCharacterOfPosition(node.getStart(tree)).line + 1;

  const visit = (node: ts.Node): void => {
    const specifier = specifierOf(node);
    if (specifier !== undefined) {
      const file = specifier.startsWith('.')
        ? { file: sourceOf(posix.join(posix.dirname(path), specifier), paths) }
        : {};
      imports.push({ line: lineOf(node), specifier, ...file });
    }
    // A .d.ts only describes what others wrote.
    const found = path.endsWith('.d.ts') ? [] : traitsOf(node);
    for (const trait of found) traits.push({ line: lineOf(node), ...trait });
    ts.forEachChild(node, visit);
  };
  visit(tree);
  return { path, lines: text.split('\n').length - (text.endsWith('\n') ? 1 : 0), imports, traits };
}

function sourceOf(output: string, paths: readonly string[]): string {
  const [script, ...others] = ['.ts', '.tsx', '.d.ts'].map((ending) => output.replace(/\.js$/, ending));
  return others.find((path) => paths.includes(path)) ?? script ?? output;
}

function specifierOf(node: ts.Node): string | undefined {
  if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) return textOf(node.moduleSpecifier);
  if (ts.isImportTypeNode(node))
    return textOf(ts.isLiteralTypeNode(node.argument) ? node.argument.literal : undefined);
  if (ts.isExternalModuleReference(node)) return textOf(node.expression);
  if (ts.isCallExpression(node)) {
    const isImport = node.expression.kind === ts.SyntaxKind.ImportKeyword;
    const isRequire = ts.isIdentifier(node.expression) && node.expression.text === 'require';
    if (isImport || isRequire) return requestedBy(node.arguments[0]);
  }
  return undefined;
}

/** A literal, or a constant that holds one; what is computed is reported as it stands, and then matches no table. */
function requestedBy(argument: ts.Expression | undefined): string {
  const literal = textOf(argument);
  if (literal !== undefined || argument === undefined) return literal ?? '';
  const constants: string[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isVariableDeclaration(node) && node.name.getText() === argument.getText()) {
      const isConst = (node.parent.flags & ts.NodeFlags.Const) !== 0;
      constants.push((isConst ? textOf(node.initializer) : undefined) ?? argument.getText());
    }
    ts.forEachChild(node, visit);
  };
  visit(argument.getSourceFile());
  return constants.length === 1 ? (constants[0] ?? '') : argument.getText();
}

function textOf(node: ts.Node | undefined): string | undefined {
  if (node !== undefined && ts.isAsExpression(node)) return textOf(node.expression);
  return node !== undefined && ts.isStringLiteralLike(node) ? node.text : undefined;
}

function traitsOf(node: ts.Node): readonly Omit<SourceTrait, 'line'>[] {
  if (ts.isEnumDeclaration(node)) return [{ kind: 'enum', text: node.name.text }];
  if (ts.isModuleDeclaration(node)) return [{ kind: 'namespace', text: node.name.getText() }];
  if (ts.isExportAssignment(node) || isDefaultExport(node))
    return [{ kind: 'default export', text: 'default' }];
  if (ts.isExportDeclaration(node) && node.exportClause === undefined) {
    return [{ kind: 'star export', text: textOf(node.moduleSpecifier) ?? '' }];
  }
  if (ts.isClassLike(node)) {
    return (node.heritageClauses ?? [])
      .filter((clause) => clause.token === ts.SyntaxKind.ExtendsKeyword)
      .flatMap((clause) => clause.types)
      .map((type) => ({ kind: 'class extends', text: type.expression.getText() }));
  }
  if (ts.isVariableStatement(node) && ts.isSourceFile(node.parent)) return moduleState(node.declarationList);
  return [];
}

function isDefaultExport(node: ts.Node): boolean {
  return (
    ts.canHaveModifiers(node) &&
    (ts.getModifiers(node) ?? []).some((modifier) => modifier.kind === ts.SyntaxKind.DefaultKeyword)
  );
}

/** Variables that can change, and containers that start empty, unless their type says that they stay so. */
function moduleState(list: ts.VariableDeclarationList): readonly Omit<SourceTrait, 'line'>[] {
  const isConst = (list.flags & ts.NodeFlags.Const) !== 0;
  return list.declarations
    .filter((declaration) => !isConst || isEmptyContainer(declaration))
    .map((declaration) => ({ kind: 'module state', text: declaration.name.getText() }));
}

function isEmptyContainer({ initializer, type }: ts.VariableDeclaration): boolean {
  if (initializer === undefined || !ts.isNewExpression(initializer)) return false;
  const isContainer = /^(?:Weak)?(?:Map|Set)$/.test(initializer.expression.getText());
  const isReadonly = type?.getText().startsWith('Readonly') === true;
  return isContainer && !isReadonly && (initializer.arguments?.length ?? 0) === 0;
}
