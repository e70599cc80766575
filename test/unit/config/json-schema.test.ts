import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { configJsonSchema, configJsonSchemaText } from '../../../src/config/schema.js';

type Node = Readonly<Record<string, unknown>>;

function isNode(value: unknown): value is Node {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Every property of every object in the schema, with its path. */
function* properties(node: unknown, path = ''): Generator<readonly [string, Node]> {
  if (Array.isArray(node)) {
    for (const item of node) yield* properties(item, path);
  } else if (isNode(node)) {
    for (const [key, value] of Object.entries(isNode(node['properties']) ? node['properties'] : {})) {
      assert.ok(isNode(value));
      yield [`${path}.${key}`, value];
      yield* properties(value, `${path}.${key}`);
    }
    yield* properties([node['items'], node['anyOf'], node['additionalProperties']], path);
  }
}

describe('JSON Schema', () => {
  it('config.schema.json is current: write it anew with "node dist/main.js schema > config.schema.json"', () => {
    assert.ok(readFileSync('config.schema.json', 'utf8') === configJsonSchemaText());
  });

  it('every key is described', () => {
    const all = [...properties(configJsonSchema())];
    assert.ok(all.length > 100);
    const bare = all.filter(([, node]) => typeof node['description'] !== 'string').map(([path]) => path);
    assert.deepEqual(bare, []);
  });

  it('every key is required, or has a default, or says what holds without it', () => {
    const optional = [...properties(configJsonSchema())].filter(([, node]) => node['default'] === undefined);
    const required = new Set<string>();
    const collect = (node: unknown, path: string): void => {
      if (Array.isArray(node)) node.forEach((item) => collect(item, path));
      if (!isNode(node)) return;
      if (Array.isArray(node['required']))
        for (const key of node['required']) required.add(`${path}.${String(key)}`);
      for (const [key, value] of Object.entries(isNode(node['properties']) ? node['properties'] : {})) {
        collect(value, `${path}.${key}`);
      }
      collect([node['items'], node['anyOf'], node['additionalProperties']], path);
    };
    collect(configJsonSchema(), '');
    assert.ok(required.has('.frontends.address') && required.has('.rules.backendPool'));
    const silent = optional.map(([path]) => path).filter((path) => !required.has(path));
    // Left out, these mean that there is no such thing.
    const absent =
      /\.(\$schema|capture|kernel|admin|probe|tcp|udp|idleTimeout|expectBody|expectedResponses|excludedPorts)(\.|$)/;
    const triggers = /\.flowPolicy\.\w+/;
    const unexplained = silent
      .filter((path) => !absent.test(path) && !triggers.test(path))
      .filter((path) => {
        const node = optional.find(([other]) => other === path)?.[1];
        return !/default|Needed unless|Off by|Not available|beat/i.test(String(node?.['description']));
      });
    assert.deepEqual(unexplained, []);
  });

  it('no object takes unknown keys', () => {
    const open: string[] = [];
    const visit = (node: unknown, path: string): void => {
      if (Array.isArray(node)) node.forEach((item) => visit(item, path));
      if (!isNode(node)) return;
      if (isNode(node['properties']) && node['additionalProperties'] !== false) open.push(path);
      for (const [key, value] of Object.entries(node)) visit(value, `${path}.${key}`);
    };
    visit(configJsonSchema(), '');
    assert.deepEqual(open, []);
  });
});
