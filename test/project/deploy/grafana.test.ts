import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { describe, test } from 'node:test';
import { exportedMetrics } from './exported-metrics.js';
import { readPromQl } from './promql.js';
import { queryFaults } from './query-faults.js';

interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number };
  readonly datasource?: { readonly uid: string };
  readonly targets?: readonly {
    readonly refId: string;
    readonly expr: string;
    readonly legendFormat: string;
  }[];
}

interface Dashboard {
  readonly schemaVersion: number;
  readonly panels: readonly Panel[];
  readonly templating: {
    readonly list: readonly { readonly name: string; readonly type: string; readonly definition?: string }[];
  };
  readonly annotations: { readonly list: readonly { readonly expr?: string }[] };
}

const text = await readFile('deploy/grafana/haports.json', 'utf8');
const dashboard = JSON.parse(text) as Dashboard;
const exported = await exportedMetrics();
const variables = dashboard.templating.list;

/** Grafana fills these in before it asks Prometheus; within strings, a variable may stay as it is. */
function filledIn(expr: string): string {
  return expr.replaceAll('$__rate_interval', '5m');
}

describe('deploy/grafana/haports.json', () => {
  test('is a dashboard that asks which data source to use', () => {
    assert.ok(dashboard.schemaVersion >= 39);
    assert.deepEqual(
      variables.filter(({ type }) => type === 'datasource').map(({ name }) => name),
      ['datasource'],
    );
    for (const panel of dashboard.panels) {
      if (panel.type !== 'row') assert.equal(panel.datasource?.uid, '${datasource}', panel.title);
    }
  });

  test('has every panel once, in a place of its own', () => {
    const { panels } = dashboard;
    assert.ok(panels.length > 30);
    assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length);
    const taken = new Map<string, string>();
    for (const { title, gridPos } of panels) {
      assert.ok(gridPos.x + gridPos.w <= 24, title);
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          assert.equal(taken.get(`${x},${y}`), undefined, `${title} covers another panel`);
          taken.set(`${x},${y}`, title);
        }
      }
    }
  });

  for (const panel of dashboard.panels.filter(({ type }) => type !== 'row')) {
    test(`"${panel.title}" asks for metrics and labels that are exported`, () => {
      const targets = panel.targets ?? [];
      assert.ok(targets.length > 0);
      assert.equal(new Set(targets.map(({ refId }) => refId)).size, targets.length);
      for (const { expr, legendFormat } of targets) {
        assert.deepEqual(queryFaults(filledIn(expr), exported), []);
        for (const [, label = ''] of legendFormat.matchAll(/\{\{(\w+)\}\}/g)) {
          const metrics = [...exported].filter(([name]) => expr.includes(name));
          assert.ok(
            metrics.some(([, { labels }]) => labels.has(label)),
            `${label} in the legend of ${panel.title}`,
          );
        }
      }
    });
  }

  test('asks in variables and annotations for what is exported', () => {
    for (const { expr } of dashboard.annotations.list) {
      if (expr !== undefined) assert.deepEqual(queryFaults(filledIn(expr), exported), []);
    }
    for (const { definition } of variables) {
      if (definition === undefined) continue;
      const [, query = '', label = ''] = /^label_values\((.+), (\w+)\)$/.exec(definition) ?? [];
      const [selector] = readPromQl(query).selectors;
      const labels = exported.get(selector?.metric ?? '')?.labels;
      for (const name of [label, ...(selector?.labels ?? [])]) assert.ok(labels?.has(name), definition);
    }
  });

  test('uses only variables that it has', () => {
    const names = new Set(variables.map(({ name }) => name));
    const used = [...text.matchAll(/\$\{?([a-z]\w*)\}?/g)].map(([, name = '']) => name);
    assert.deepEqual(
      used.filter((name) => !names.has(name)),
      [],
    );
  });

  test('shows every metric that haports itself exports, save those that are there to join others with', () => {
    const left = [...exported.keys()]
      .filter((name) => name.startsWith('haports_') && !name.endsWith('_info'))
      .filter((name) => !text.includes(name));
    assert.deepEqual(left, []);
  });
});
