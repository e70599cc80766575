import { configJsonSchema } from '../src/config/schema.js';

const INTRODUCTION = `# Configuration keys

<!-- Written by \`npm run generate\` from src/config/schema.ts; edit that, and tools/configuration-page.ts. -->

Every key of the configuration, as [config.schema.json](../../config.schema.json) has it. A configuration is strict JSON:
no comments, no trailing commas, no unknown keys. Durations are text with a unit (\`"500ms"\`, \`"5s"\`, \`"4m"\`, \`"1h"\`).
\`haports check\` reports everything that is wrong at once, what hangs together across keys too; see
[configuration](../configuration.md) for how the parts work together.
`;

type Node = Readonly<Record<string, unknown>>;

/** The whole page, not formatted yet. */
export function configurationPage(): string {
  return [INTRODUCTION, ...sections(configJsonSchema(), '')].join('\n');
}

/** An object's keys as a table, then those of the objects inside it. */
function sections(node: Node, path: string): readonly string[] {
  const keys = Object.entries(asNode(node['properties']));
  const required = Array.isArray(node['required']) ? node['required'] : [];
  const title = path === '' ? '## At the top' : `## ${code(path)}`;
  const about = path === '' ? '' : `${textOf(node['description'])}.\n\n`;
  const rows = keys.map(([key, value]) => {
    const member = asNode(value);
    return [code(key), kind(member), fallback(member, required.includes(key)), textOf(member['description'])];
  });
  const inner = keys.flatMap(([key, value]) =>
    objectsIn(asNode(value), path === '' ? key : `${path}.${key}`),
  );
  return [`${title}\n\n${about}${table(rows)}`, ...inner.flatMap(([at, found]) => sections(found, at))];
}

/** Objects with keys of their own that a value may be, or hold. */
function objectsIn(node: Node, path: string): readonly (readonly [string, Node])[] {
  if (node['properties'] !== undefined) return [[path, node]];
  if (node['items'] !== undefined) return objectsIn(asNode(node['items']), `${path}[]`);
  const description = node['description'];
  return alternatives(node).flatMap((one) => objectsIn({ description, ...one }, path));
}

function alternatives(node: Node): readonly Node[] {
  return Array.isArray(node['anyOf']) ? node['anyOf'].map(asNode) : [];
}

/** What a value may be: \`tcp\`, \`udp\`; integer 1-65535; list of text. */
function kind(node: Node): string {
  const { type, minimum, maximum } = node;
  if (Array.isArray(node['enum'])) return node['enum'].map((word) => code(String(word))).join(', ');
  if (alternatives(node).length > 0) return [...new Set(alternatives(node).map(kind))].join(', or ');
  if (type === 'array') return `list of ${kind(asNode(node['items']))}`;
  if (type === 'object') return node['properties'] === undefined ? 'object, by name' : 'object';
  if (type === 'boolean') return 'true, false';
  if (type === 'string') return 'text';
  return `${type === 'integer' ? 'whole number' : textOf(type)} ${String(minimum)}-${String(maximum)}`;
}

function fallback({ default: value }: Node, isRequired: boolean): string {
  if (value === undefined) return isRequired ? 'required' : '';
  return JSON.stringify(value) === '{}' ? '' : code(JSON.stringify(value));
}

function asNode(value: unknown): Node {
  return typeof value === 'object' && value !== null ? (value as Node) : {};
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function code(text: string): string {
  return `\`${text}\``;
}

function table(rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |\n`;
  const head = ['key', 'value', 'default', 'meaning'];
  return line(head) + line(head.map(() => '-')) + rows.map(line).join('');
}
