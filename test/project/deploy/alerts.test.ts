import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { describe, test } from 'node:test';
import { hasCommand, runCommand } from '../../support/commands.js';
import { readAlertRules } from './alert-rules.js';
import { exportedMetrics } from './exported-metrics.js';
import { readPromQl } from './promql.js';
import { queryFaults } from './query-faults.js';

const text = await readFile('deploy/prometheus/alerts.yml', 'utf8');
const rules = readAlertRules(text);
const exported = await exportedMetrics();

describe('deploy/prometheus/alerts.yml', () => {
  test('alerts on what can go wrong, each name once', () => {
    const names = rules.map(({ alert }) => alert);
    assert.ok(names.length >= 15);
    assert.equal(new Set(names).size, names.length);
    assert.deepEqual(
      names.filter((name) => !name.startsWith('Haports')),
      [],
    );
  });

  for (const rule of rules) {
    test(`${rule.alert} asks for metrics and labels that are exported`, () => {
      assert.deepEqual(queryFaults(rule.expr, exported), []);
    });

    test(`${rule.alert} says how bad it is, since when, and what to do`, () => {
      assert.match(rule.for, /^\d+[smh]$/);
      assert.match(rule.severity, /^(warning|critical)$/);
      assert.ok(rule.runbook.length > 40 && rule.runbook.endsWith('.'));
    });

    test(`${rule.alert} names only labels that its result may have`, () => {
      const { selectors, groupings } = readPromQl(rule.expr);
      const labels = new Set([
        ...groupings,
        ...selectors.flatMap(({ metric }) => [...(exported.get(metric)?.labels ?? [])]),
      ]);
      const named = [...rule.summary.matchAll(/\$labels\.([a-z_]+)/g)].map(([, label = '']) => label);
      assert.ok(named.length > 0);
      assert.deepEqual(
        named.filter((label) => !labels.has(label)),
        [],
      );
    });
  }

  test('names as metrics in its runbooks only those that are exported', () => {
    const named = [...text.matchAll(/\bhaports_[a-z_]+/g)].map(([name]) => name);
    assert.deepEqual(
      named.filter((name) => !exported.has(name)),
      [],
    );
  });
});

describe('deploy/prometheus/azure.yml', () => {
  test("records Azure's eight metrics from what is exported", async () => {
    const rules = (await readFile('deploy/prometheus/azure.yml', 'utf8'))
      .split(/^ {6}- record: /m)
      .slice(1)
      .map((rule) => {
        const [, record = '', expr = ''] = /^(\S+)\n {8}expr: \|?((?:.*\n)(?: {10}.*\n)*)/.exec(rule) ?? [];
        return { record, selectors: readPromQl(expr.trim()).selectors };
      });
    const helpers = rules.filter(({ record }) => record.includes(':')).map(({ record }) => record);
    for (const { record, selectors } of rules) {
      const unknown = selectors.filter(({ metric }) => !exported.has(metric) && !helpers.includes(metric));
      assert.deepEqual(unknown, [], record);
    }
    assert.deepEqual(
      rules.map(({ record }) => record).filter((record) => !helpers.includes(record)),
      [
        ...['vip_availability', 'dip_availability', 'syn_count_total', 'byte_count_total'],
        ...['packet_count_total', 'snat_connection_count_total', 'allocated_snat_ports', 'used_snat_ports'],
      ].map((name) => `haports_azure_${name}`),
    );
  });
});

describe('deploy/prometheus', () => {
  test('promtool: made-up series give the alerts and records that they should', async (t) => {
    if (!(await hasCommand('promtool'))) {
      t.skip('promtool is not installed');
      return;
    }
    const files = ['deploy/prometheus/alerts.yml', 'deploy/prometheus/azure.yml'];
    const checked = await runCommand('promtool', ['check', 'rules', ...files]);
    assert.equal(checked.code, 0, checked.stderr);
    const tested = await runCommand('promtool', [
      'test',
      'rules',
      'test/project/deploy/prometheus-rules.yml',
    ]);
    assert.equal(tested.code, 0, tested.stdout + tested.stderr);
  });
});

describe('readAlertRules()', () => {
  const rule = `groups:
  - name: some-group
    rules:
      - alert: Some
        expr: a > 1
        for: 1m
        labels:
          severity: warning
        annotations:
          summary: "says: so"
          runbook: do
`;

  test('reads what YAML reads', () => {
    const alert = {
      group: 'some-group',
      alert: 'Some',
      expr: 'a > 1',
      for: '1m',
      severity: 'warning',
      summary: 'says: so',
      runbook: 'do',
    };
    assert.deepEqual(readAlertRules(rule), [alert]);
    assert.deepEqual(readAlertRules(rule.replace('"says: so"', "'it''s: so'")), [
      { ...alert, summary: "it's: so" },
    ]);
    const block = rule.replace('expr: a > 1', 'expr: |\n          a\n            > 1');
    assert.deepEqual(readAlertRules(block), [{ ...alert, expr: 'a\n> 1' }]);
  });

  const broken: readonly (readonly [string, string, string])[] = [
    ['a missing key', '        for: 1m\n', ''],
    ['an unknown key', 'severity: warning', 'severety: warning'],
    ['a key twice', '        for: 1m\n', '        for: 1m\n        for: 2m\n'],
    ['a key in the wrong place', '          severity', '        severity'],
    ['a colon that needs quotes', '"says: so"', 'says: so'],
  ];
  for (const [what, from, to] of broken) {
    test(`refuses ${what}`, () => {
      assert.throws(() => readAlertRules(rule.replace(from, to)), SyntaxError);
    });
  }
});
