import assert from 'node:assert/strict';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { Finding } from '../../../src/config/findings.js';
import { configurationFromJson, configurationToJson, withoutSecrets } from '../../../src/api/flow-log.js';
import { ipAddress } from '../../../src/model/address.js';
import type { Configuration } from '../../../src/model/configuration.js';
import { formatPortSet, type PortRange } from '../../../src/model/ports.js';
import { KERNEL_MODES, example, haExample, kernelExample, parse } from '../../support/example.js';
import { configurationOf } from '../../support/state-factory.js';

/*
 * What is found in configurations, and what becomes of them, as texts in findings/. UPDATE_GOLDEN=1 writes it: read the
 * difference.
 *
 *     # the section                    a code as title: only findings with it count
 *     @hidden V\d+                     findings that do not count, a pattern of their codes
 *     @machine 192.168.7.7             addresses of the machine
 *     @compat none/azure               each case under both; severities that differ are written note/error
 *
 *     what is done
 *       web, ha, nat                   the examples that it is done to, with the same outcome (support/example.ts)
 *       rules[0].backendPort = 80      what they have otherwise
 *       rules[0].probe absent
 *       note LB_CODE rules[0]: message | found | expected | reason
 *       rules[0].ports is "80"         a part of the configuration that it becomes; port sets as text
 */

const FOLDER = join(process.cwd(), 'test/unit/config/findings');

const BASES: Readonly<Record<string, () => object>> = {
  web: () => example(),
  ha: () => haExample(),
  ...Object.fromEntries(KERNEL_MODES.map((mode) => [mode, () => kernelExample(mode)])),
};

const EDIT = /^ {2}(\S+) (?:= (.*)|absent)$/;
const RESULT = /^ {2}(\S+) is .*$/;

interface Case {
  readonly what: string;
  readonly bases: readonly string[];
  readonly edits: readonly string[];
  /** What comes of it: findings, and parts of the configuration. */
  readonly found: readonly string[];
}

interface Section {
  readonly title: string;
  /** As it is written: title and options. */
  readonly head: string;
  readonly cases: readonly Case[];
  readonly isShown: (finding: Finding) => boolean;
  readonly machine: readonly string[];
  readonly compats: readonly (string | undefined)[];
}

function sectionOf(text: string): Section {
  const [head = '', ...blocks] = text.trimEnd().split('\n\n');
  const option = (name: string) => new RegExp(`^@${name} (.*)$`, 'm').exec(head)?.[1];
  const title = head.slice(2).split('\n', 1)[0] ?? '';
  const [isCode, hidden] = [/^(LB_[A-Z_]+|V\d+)$/.test(title), new RegExp(`^(${option('hidden') ?? ''})$`)];
  return {
    ...{ head, title },
    cases: blocks.map((block) => {
      const [what = '', bases = '', ...lines] = block.split('\n');
      const count = lines.findLastIndex((line) => EDIT.test(line)) + 1;
      const [edits, found] = [lines.slice(0, count), lines.slice(count)];
      return { what, bases: bases.trim().split(', '), edits, found };
    }),
    isShown: ({ code }) => (isCode ? code === title : !hidden.test(code)),
    machine: option('machine')?.split(', ') ?? [],
    compats: option('compat')?.split('/') ?? [undefined],
  };
}

/** `rules[0].ports` */
function stepsOf(place: string): string[] {
  return place.split(/[.[\]]+/).filter((step) => step !== '');
}

/** The example with what the lines change. */
function edited(base: string, edits: readonly string[]): object {
  const written = structuredClone(BASES[base]?.());
  assert.ok(written !== undefined, `There is no example "${base}"`);
  for (const line of edits) {
    const [, place = '', json] = EDIT.exec(line) ?? [];
    const steps = stepsOf(place);
    const last = steps.pop() ?? '';
    const holder = steps.reduce<Record<string, unknown>>(
      (node, step, index) => {
        const next = steps[index + 1] ?? last;
        return (node[step] ??= /^\d+$/.test(next) ? [] : {}) as Record<string, unknown>;
      },
      written as Record<string, unknown>,
    );
    if (json === undefined) Reflect.deleteProperty(holder, last);
    else holder[last] = JSON.parse(json);
  }
  return written;
}

/** `LB_CODE path: message | found | expected | reason`, without what is not there at the end. */
function told({ code, path, message, found = '', expected = '', reason = '' }: Finding): string {
  const sentences = [message, found, expected, reason].join(' | ').replace(/( \| ?)+$/, '');
  return `${code} ${path}: ${sentences}`;
}

/** What is at a place of a configuration, as JSON; `nothing`. */
function partOf(configuration: Configuration, place: string): string {
  const json: unknown = configurationToJson(configuration);
  const part = stepsOf(place).reduce((node, step) => (node as Record<string, unknown>)[step], json);
  const isRange = (value: unknown): value is PortRange =>
    typeof value === 'object' && value !== null && 'first' in value && 'last' in value;
  return part === undefined
    ? 'nothing'
    : JSON.stringify(part, (_key, value: unknown) =>
        Array.isArray(value) && value.length > 0 && value.every(isRange) ? formatPortSet(value) : value,
      );
}

/** What comes of a case: what is found in it, a line each, and the parts that `wanted` asks for. */
function outcome(base: string, { edits, found }: Case, section: Section): readonly string[] {
  const written = edited(base, edits);
  const wanted = found.flatMap((line) => RESULT.exec(line)?.[1] ?? []);
  if (wanted.length === 0) return foundIn(written, section);
  const configuration = configurationOf(written);
  assert.deepEqual(configurationFromJson(configurationToJson(configuration)), withoutSecrets(configuration));
  return [
    ...foundIn(written, section),
    ...wanted.map((place) => `  ${place} is ${partOf(configuration, place)}`),
  ];
}

/** What is found in it, a line each. */
function foundIn(written: object, { isShown, machine, compats }: Section): readonly string[] {
  const ownAddresses = machine.map(ipAddress);
  const [first = [], second = first] = compats.map((compat) => {
    const { ok, findings } = parse(compat === undefined ? written : { ...written, compat }, { ownAddresses });
    assert.equal(ok, !findings.some(({ severity }) => severity === 'error'));
    return findings.filter(isShown);
  });
  assert.deepEqual(second.map(told).sort(), first.map(told).sort());
  return first.map((finding) => {
    const other = second.find((one) => told(one) === told(finding)) ?? finding;
    return `  ${[...new Set([finding.severity, other.severity])].join('/')} ${told(finding)}`;
  });
}

const files = readdirSync(FOLDER).map((name) => {
  const text = readFileSync(join(FOLDER, name), 'utf8');
  return { name, sections: text.split(/^(?=# )/m).map(sectionOf) };
});

if (process.env['UPDATE_GOLDEN'] !== undefined) {
  for (const { name, sections } of files) {
    const texts = sections.map((section) => {
      const cases = section.cases.map((one) => {
        const { what, bases, edits } = one;
        const lines = outcome(bases[0] ?? '', one, section);
        return [what, `  ${bases.join(', ')}`, ...edits, ...lines].join('\n');
      });
      return `${[section.head, ...cases].join('\n\n')}\n`;
    });
    writeFileSync(join(FOLDER, name), texts.join('\n'));
  }
}

for (const { name, sections } of files) {
  describe(`the findings of ${name}`, () => {
    for (const section of sections) {
      for (const one of section.cases) {
        for (const base of one.bases) {
          it(`${section.title}: ${one.what} (${base})`, () =>
            assert.deepEqual(outcome(base, one, section), one.found));
        }
      }
    }
  });
}

it('every one of the codes V1 to V20 has a case that finds and one that does not', () => {
  const sections = files.flatMap((file) => file.sections);
  for (let number = 1; number <= 20; number++) {
    const cases = sections.find(({ title }) => title === `V${number}`)?.cases ?? [];
    assert.equal(new Set(cases.map(({ found }) => found.length > 0)).size, 2, `V${number}`);
  }
});
