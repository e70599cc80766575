import { METRICS, type Metric } from '../src/observe/metric-table.js';

/*
 * deploy/grafana/haports.json: panels that were thought about, by hand, and one for every metric that they leave out.
 * Queries name metrics of the table only; what a label of a metric filters by comes from there.
 */

const ALL: readonly Metric[] = METRICS.flatMap(({ metrics }) => metrics);
const PROMETHEUS = { type: 'prometheus', uid: '${datasource}' };
const RATE = '$__rate_interval';

interface Panel {
  readonly type: string;
  readonly title: string;
  readonly description?: string;
  /** Of 24 columns. */
  readonly width: number;
  readonly height: number;
  readonly [member: string]: unknown;
}

/** A metric, filtered by the dashboard's variables, as far as it has such labels, and by `more`. */
function of(name: string, more?: string): string {
  const labels = ALL.find((metric) => metric.name === name.replace(/_(bucket|sum|count)$/, ''))?.labels;
  if (labels === undefined) throw new TypeError(`No such metric: ${name}`);
  const variables = ['job', 'instance', ...['rule', 'pool'].filter((label) => labels.includes(label))];
  const filters = variables.map((label) => `${label}=~"$${label}"`);
  return `${name}{${[...filters, ...(more === undefined ? [] : [more])].join(', ')}}`;
}

function rate(name: string, more?: string): string {
  return `rate(${of(name, more)}[${RATE}])`;
}

function sum(labels: string, expr: string): string {
  return `sum by (${labels}) (${expr})`;
}

type Query = readonly [expr: string, legend: string];

function targets(queries: readonly Query[], more: object = {}): object {
  return {
    datasource: PROMETHEUS,
    targets: queries.map(([expr, legendFormat], index) => ({
      ...{ refId: String.fromCharCode(65 + index), datasource: PROMETHEUS, editorMode: 'code' },
      ...{ expr, legendFormat, range: true, ...more },
    })),
  };
}

type Steps = readonly (readonly [color: string, from: number | null])[];

function thresholds(steps: Steps): object {
  return { mode: 'absolute', steps: steps.map(([color, value]) => ({ color, value })) };
}

/** Values 0, 1 ... as words. */
function words(values: readonly (readonly [text: string, color: string])[]): readonly object[] {
  const options = Object.fromEntries(values.map(([text, color], index) => [index, { text, color, index }]));
  return [{ type: 'value', options }];
}

function stat(
  title: string,
  description: string,
  expr: string,
  unit: string,
  steps: Steps,
  look: { width?: number; graph?: boolean; decimals?: number; words?: readonly object[] } = {},
): Panel {
  const { width = 3, graph = true, decimals, words: mappings = [] } = look;
  const color = { mode: 'thresholds' };
  return {
    ...{ type: 'stat', title, description, width, height: 4 },
    ...targets([[expr, '__auto']]),
    fieldConfig: {
      defaults: {
        unit,
        mappings,
        color,
        thresholds: thresholds(steps),
        ...(decimals === undefined ? {} : { decimals }),
      },
      overrides: [],
    },
    options: {
      ...{ colorMode: 'value', graphMode: graph ? 'area' : 'none', justifyMode: 'auto', orientation: 'auto' },
      ...{ textMode: 'auto', reduceOptions: { calcs: ['lastNotNull'], fields: '', values: false } },
    },
  };
}

function lines(
  title: string,
  description: string | undefined,
  unit: string,
  queries: readonly Query[],
  look: {
    width?: number;
    height?: number;
    stacked?: boolean;
    max?: number;
    warnFrom?: number;
    below?: string;
  } = {},
): Panel {
  const { width = 8, height = 8, stacked = false, max, warnFrom, below } = look;
  return {
    ...{ type: 'timeseries', title, description, width, height },
    ...targets(queries),
    fieldConfig: {
      defaults: {
        unit,
        custom: {
          ...{
            drawStyle: 'line',
            lineWidth: 1,
            fillOpacity: stacked ? 20 : 8,
            showPoints: 'never',
            spanNulls: false,
          },
          stacking: { mode: stacked ? 'normal' : 'none', group: 'A' },
          ...(warnFrom === undefined ? {} : { thresholdsStyle: { mode: 'dashed' } }),
        },
        color: { mode: 'palette-classic' },
        mappings: [],
        ...(below === undefined ? { min: 0 } : {}),
        ...(max === undefined ? {} : { max }),
        ...(warnFrom === undefined
          ? {}
          : {
              thresholds: thresholds([
                ['transparent', null],
                ['orange', warnFrom],
              ]),
            }),
      },
      overrides:
        below === undefined
          ? []
          : [
              {
                matcher: { id: 'byRegexp', options: below },
                properties: [{ id: 'custom.transform', value: 'negative-Y' }],
              },
            ],
    },
    options: {
      legend: { displayMode: 'table', placement: 'bottom', showLegend: true, calcs: ['lastNotNull', 'max'] },
      tooltip: { mode: 'multi', sort: 'desc' },
    },
  };
}

function states(
  title: string,
  description: string,
  [expr, legend]: Query,
  values: Parameters<typeof words>[0],
  width: number,
): Panel {
  return {
    ...{ type: 'state-timeline', title, description, width, height: 8 },
    ...targets([[expr, legend]]),
    fieldConfig: {
      defaults: {
        ...{
          mappings: words(values),
          color: { mode: 'thresholds' },
          custom: { fillOpacity: 80, lineWidth: 0 },
        },
        thresholds: thresholds([['text', null]]),
      },
      overrides: [],
    },
    options: {
      ...{ mergeValues: true, showValue: 'never', alignValue: 'left', rowHeight: 0.8 },
      legend: { displayMode: 'list', placement: 'bottom', showLegend: true },
      tooltip: { mode: 'single' },
    },
  };
}

/** Shares of a whole, one bar a backend. */
function shares(title: string, description: string, expr: string): Panel {
  return {
    ...{ type: 'bargauge', title, description, width: 8, height: 8 },
    ...targets([[expr, BACKEND]], { instant: true }),
    fieldConfig: {
      defaults: { unit: 'percentunit', min: 0, max: 1, mappings: [], color: { mode: 'palette-classic' } },
      overrides: [],
    },
    options: {
      ...{
        displayMode: 'basic',
        orientation: 'horizontal',
        showUnfilled: true,
        minVizHeight: 16,
        minVizWidth: 8,
      },
      ...{ valueMode: 'color', namePlacement: 'left', sizing: 'auto' },
      reduceOptions: { calcs: ['lastNotNull'], fields: '', values: false },
      legend: { displayMode: 'list', placement: 'bottom', showLegend: false },
    },
  };
}

function heatmap(title: string, description: string, expr: string): Panel {
  return {
    ...{ type: 'heatmap', title, description, width: 12, height: 8 },
    ...targets([[expr, '{{le}}']], { format: 'heatmap' }),
    fieldConfig: {
      defaults: {
        custom: {
          hideFrom: { legend: false, tooltip: false, viz: false },
          scaleDistribution: { type: 'linear' },
        },
      },
      overrides: [],
    },
    options: {
      ...{ calculate: false, cellGap: 1, rowsFrame: { layout: 'auto' }, filterValues: { le: 1e-9 } },
      color: {
        ...{ mode: 'scheme', scheme: 'Spectral', steps: 64, reverse: true, exponent: 0.5 },
        ...{ fill: 'dark-orange', scale: 'exponential' },
      },
      ...{ yAxis: { axisPlacement: 'left', unit: 's' }, legend: { show: true }, showValue: 'never' },
      ...{ tooltip: { mode: 'single', yHistogram: false }, exemplars: { color: 'rgba(255,0,255,0.7)' } },
    },
  };
}

function table(title: string, description: string, expr: string): Panel {
  return {
    ...{ type: 'table', title, description, width: 12, height: 7 },
    ...targets([[expr, '__auto']], { instant: true, format: 'table' }),
    fieldConfig: {
      defaults: { custom: { align: 'auto', cellOptions: { type: 'auto' } }, mappings: [] },
      overrides: [],
    },
    options: { showHeader: true, cellHeight: 'sm' },
    transformations: [
      {
        id: 'organize',
        options: {
          ...{
            excludeByName: { Time: true, Value: true, __name__: true },
            indexByName: {},
            renameByName: {},
          },
        },
      },
    ],
  };
}

const BACKEND = '{{pool}}/{{backend}}';
const SERVING = `${of('haports_backend_weight')} * ${of('haports_backend_serving')}`;
const LAST_HOUR = `increase(${of('haports_flows_opened_total')}[1h])`;
const perBackend = (expr: string): string => sum('pool, backend', expr);
const share = (expr: string): string => `${perBackend(expr)} / on (pool) group_left () ${sum('pool', expr)}`;
const BLUE: Steps = [['blue', null]];
const RED_FROM_1: Steps = [
  ['green', null],
  ['red', 1],
];
const GREEN_FROM_1: Steps = [
  ['red', null],
  ['green', 1],
];

const ROWS: readonly (readonly [title: string, panels: readonly Panel[]])[] = [
  [
    'At a glance',
    [
      stat(
        'Data planes up',
        'Share of instances whose data workers answered the last scrape',
        `sum(${of('haports_data_plane_up')}) / count(${of('haports_build_info')})`,
        'percentunit',
        GREEN_FROM_1,
        { graph: false },
      ),
      stat(
        'Data path availability',
        'Listeners open of those wanted, of the worst frontend',
        `min(${of('haports_data_path_availability_ratio')})`,
        'percentunit',
        [
          ['red', null],
          ['orange', 0.25],
          ['green', 0.9],
        ],
      ),
      stat(
        'Backends for new flows',
        'Share of members that may get new flows, probe and admin state taken together',
        `sum(${of('haports_pool_eligible_backends')}) / sum(${of('haports_pool_backends')})`,
        'percentunit',
        [
          ['red', null],
          ['orange', 0.5],
          ['green', 1],
        ],
      ),
      stat('Flows', 'Flows in the flow tables', `sum(${of('haports_flows_active')})`, 'short', BLUE),
      stat(
        'New flows',
        'Flows placed on a backend, a second',
        `sum(${rate('haports_flows_opened_total')})`,
        'cps',
        BLUE,
      ),
      stat(
        'Throughput',
        'Payload, both directions',
        `8 * sum(${rate('haports_flow_bytes_total')})`,
        'bps',
        BLUE,
      ),
      stat(
        'Health events',
        'Health events that are raised now; see Operation below',
        `sum(${of('haports_health_event_active')})`,
        'short',
        RED_FROM_1,
      ),
      stat(
        'Workers lost, 24 h',
        'Data workers that died and were replaced',
        `sum(increase(${of('haports_workers_lost_total')}[24h]))`,
        'short',
        RED_FROM_1,
        { graph: false, decimals: 0 },
      ),
    ],
  ],
  [
    'Traffic',
    [
      lines(
        'Throughput by rule',
        'Payload. Above the line to backends, below it to clients',
        'bps',
        (['backend', 'client'] as const).map((side) => [
          `8 * ${sum('rule', rate('haports_flow_bytes_total', `direction="to_${side}"`))}`,
          `{{rule}} to ${side}s`,
        ]),
        { width: 12, below: '.* to clients' },
      ),
      lines(
        'Throughput by backend',
        'Payload, both directions',
        'bps',
        [[`8 * ${perBackend(rate('haports_flow_bytes_total'))}`, BACKEND]],
        { width: 12, stacked: true },
      ),
      lines('New flows by rule', 'Flows placed on a backend', 'cps', [
        [sum('rule, protocol', rate('haports_flows_opened_total')), '{{rule}} {{protocol}}'],
      ]),
      lines(
        'New flows by backend',
        undefined,
        'cps',
        [[perBackend(rate('haports_flows_opened_total')), BACKEND]],
        { stacked: true },
      ),
      lines(
        'Flows by backend',
        'Flows in the flow table',
        'short',
        [[perBackend(of('haports_flows_active')), BACKEND]],
        { stacked: true },
      ),
      shares('Share by hash', 'What the weights of serving backends promise each', share(SERVING)),
      shares(
        'Share of new flows, 1 h',
        'What each really got. Far from the share by hash: few client addresses under source affinity, retries, caps',
        share(LAST_HOUR),
      ),
      lines('Packets by backend', 'UDP: datagrams. TCP: chunks read, since a proxy sees no segments', 'pps', [
        [sum('pool, backend, protocol', rate('haports_flow_packets_total')), `${BACKEND} {{protocol}}`],
      ]),
    ],
  ],
  [
    'Health',
    [
      states(
        'Probes',
        'Down also while not known yet; the worst of the instances chosen',
        [`min by (pool, backend, probe) (${of('haports_probe_up')})`, `${BACKEND} {{probe}}`],
        [
          ['down', 'red'],
          ['up', 'green'],
        ],
        12,
      ),
      states(
        'In service',
        'In the table: eligible, and in the serving priority group',
        [`min by (pool, backend) (${of('haports_backend_serving')})`, BACKEND],
        [
          ['out', 'orange'],
          ['serves', 'green'],
        ],
        12,
      ),
      states(
        'May get new flows',
        'Eligible: probe and admin state taken together, drains too',
        [`min by (pool, backend) (${of('haports_backend_eligible')})`, BACKEND],
        [
          ['no', 'red'],
          ['yes', 'green'],
        ],
        8,
      ),
      lines('Probe duration', 'Of the last probe', 's', [
        [`max by (pool, backend, probe) (${of('haports_probe_duration_seconds')})`, `${BACKEND} {{probe}}`],
      ]),
      lines('Failed probes and changes of state', undefined, 'short', [
        [perBackend(rate('haports_probe_results_total', 'verdict="failure"')), `${BACKEND} failed/s`],
        [
          perBackend(`increase(${of('haports_probe_transitions_total')}[10m])`),
          `${BACKEND} changes in 10 min`,
        ],
      ]),
    ],
  ],
  [
    'Ends, drops, resets',
    [
      lines(
        'Flows ended, by reason',
        undefined,
        'cps',
        [[sum('reason', rate('haports_flows_ended_total')), '{{reason}}']],
        { stacked: true },
      ),
      lines('Drops, by reason', 'Connections or datagrams that got no flow or were thrown away', 'cps', [
        [sum('rule, reason', rate('haports_drops_total')), '{{rule}} {{reason}}'],
      ]),
      lines('Arrivals, and flows placed', 'The gap between both got no backend', 'cps', [
        [sum('rule', rate('haports_arrivals_total')), '{{rule}} arrived'],
        [sum('rule', rate('haports_flows_opened_total')), '{{rule}} placed'],
      ]),
      lines('Resets by backend', 'RST received from either side, or sent for idleness or policy', 'cps', [
        [perBackend(rate('haports_resets_total')), BACKEND],
      ]),
      lines(
        'Share of connects that fail',
        'TCP',
        'percentunit',
        [
          [
            `${perBackend(rate('haports_upstream_connections_total', 'protocol="tcp", outcome="failed"'))} / ${perBackend(rate('haports_upstream_connections_total', 'protocol="tcp"'))}`,
            BACKEND,
          ],
        ],
        { warnFrom: 0.05 },
      ),
      lines('Connect failures and retries', undefined, 'cps', [
        [perBackend(rate('haports_connect_failures_total')), `${BACKEND} failed`],
        [perBackend(rate('haports_connect_retries_total')), `${BACKEND} tried another`],
      ]),
    ],
  ],
  [
    'Connect latency',
    [
      heatmap(
        'Time to connect',
        'From the first attempt to connect upstream until connected',
        sum('le', `increase(${of('haports_connect_duration_seconds_bucket')}[${RATE}])`),
      ),
      lines(
        'Time to connect, 95th percentile and mean',
        undefined,
        's',
        [
          [
            `histogram_quantile(0.95, ${sum('le, pool, backend', rate('haports_connect_duration_seconds_bucket'))})`,
            `${BACKEND} p95`,
          ],
          [
            `${perBackend(rate('haports_connect_duration_seconds_sum'))} / ${perBackend(rate('haports_connect_duration_seconds_count'))}`,
            `${BACKEND} mean`,
          ],
        ],
        { width: 12 },
      ),
    ],
  ],
  [
    'Capacity',
    [
      lines(
        'Flow table in use',
        'Of the budgets in limits',
        'percentunit',
        [[`${of('haports_flow_table_used')} / ${of('haports_flow_table_limit')}`, '{{instance}} {{table}}']],
        { max: 1, warnFrom: 0.8 },
      ),
      lines(
        'Source ports in use',
        'Where haports chooses them: UDP, and TCP with sourceAddresses',
        'percentunit',
        [
          [
            `${of('haports_source_ports_used')} / ${of('haports_source_ports_available')}`,
            `${BACKEND} {{protocol}} {{source_address}}`,
          ],
        ],
        { max: 1, warnFrom: 0.75 },
      ),
      lines(
        'Event-loop delay of data workers',
        'Worst of the last 15 to 30 seconds',
        's',
        [[of('haports_event_loop_delay_seconds'), '{{instance}} worker {{worker}}']],
        { warnFrom: 0.2 },
      ),
      lines('Listeners', 'Ports that cannot be bound are tried again every ten seconds', 'short', [
        [sum('instance, frontend', of('haports_listeners_open')), '{{instance}} {{frontend}} open'],
        [sum('instance, frontend', of('haports_listeners_wanted')), '{{instance}} {{frontend}} wanted'],
      ]),
      lines(
        'CPU of the control process',
        'Probes, metrics and the admin API; the data workers are processes of their own',
        'percentunit',
        [[`rate(process_cpu_seconds_total{job=~"$job", instance=~"$instance"}[${RATE}])`, '{{instance}}']],
      ),
      lines('Memory of the control process', undefined, 'bytes', [
        ['process_resident_memory_bytes{job=~"$job", instance=~"$instance"}', '{{instance}}'],
      ]),
    ],
  ],
  [
    'Operation',
    [
      stat(
        'Configuration',
        'Whether the last reload was activated; refused: the previous one stays active',
        `min(${of('haports_config_last_reload_success')})`,
        'short',
        GREEN_FROM_1,
        {
          width: 6,
          graph: false,
          words: words([
            ['refused', 'red'],
            ['activated', 'green'],
          ]),
        },
      ),
      stat(
        'Age of the configuration',
        'Since a configuration was last activated or refused, the start included',
        `time() - max(${of('haports_config_last_reload_timestamp_seconds')})`,
        's',
        BLUE,
        { width: 6, graph: false },
      ),
      stat(
        'Backends that drain',
        'Done or not: a drain keeps the backend out until it is cancelled',
        `count(${of('haports_drain_flows')})`,
        'short',
        BLUE,
        { width: 6, graph: false },
      ),
      stat(
        'Backends switched down',
        'Admin state down',
        `count(count by (pool, backend) (${of('haports_backend_admin_state', 'state="down"')}))`,
        'short',
        BLUE,
        { width: 6, graph: false },
      ),
      lines('Flows that drain', 'Flows left on backends that are being drained', 'short', [
        [perBackend(of('haports_drain_flows')), BACKEND],
      ]),
      lines(
        'Since the last new flow',
        'Grows in a straight line once a backend really gets nothing new',
        's',
        [[`time() - max by (pool, backend) (${of('haports_backend_last_flow_timestamp_seconds')})`, BACKEND]],
      ),
      states(
        'Admin state',
        "The operator's switch over the probe",
        [
          [
            `max by (pool, backend) (${of('haports_backend_admin_state', 'state="down"')} * 0 + 2)`,
            `max by (pool, backend) (${of('haports_backend_admin_state', 'state="up"')})`,
            `max by (pool, backend) (${of('haports_backend_admin_state', 'state="none"')} * 0)`,
          ].join(' or '),
          BACKEND,
        ],
        [
          ['none: as the probe says', 'green'],
          ['up', 'blue'],
          ['down', 'orange'],
        ],
        8,
      ),
      lines('Health events', "Azure's names, and those of the probe-truth monitor", 'short', [
        [sum('name, subject', of('haports_health_event_active')), '{{name}} {{subject}}'],
      ]),
      lines(
        'Reloads',
        'Each change of health, admin state or configuration is a revision of the forwarding state',
        'short',
        [
          [
            sum('instance, outcome', `increase(${of('haports_reloads_total')}[${RATE}])`),
            '{{instance}} {{outcome}}',
          ],
          [
            sum('instance', `changes(${of('haports_forwarding_revision')}[${RATE}])`),
            '{{instance}} revisions',
          ],
        ],
      ),
      lines(
        'Distinct client addresses by rule',
        'Estimate. Few addresses cannot be spread by source-ip distribution',
        'short',
        [[`max by (rule) (${of('haports_rule_distinct_sources')})`, '{{rule}}']],
      ),
      table(
        'Instances',
        'Instances of one job should show one digest: same configuration and same health give the same table',
        `${of('haports_build_info')} * on (job, instance) group_left (digest) ${of('haports_config_info')}`,
      ),
      lines(
        'Flow log',
        'Absent without a flow log',
        'cps',
        [
          [rate('haports_flow_log_lines_total'), '{{instance}} written'],
          [rate('haports_flow_log_lost_lines_total'), '{{instance}} lost'],
          [rate('haports_flow_log_write_errors_total'), '{{instance}} write errors'],
        ],
        { width: 12, height: 7 },
      ),
    ],
  ],
];

/** A plain panel for each metric that no other shows, in a row for each section of the table. */
function remainingRows(): typeof ROWS {
  const shown = JSON.stringify(ROWS);
  return METRICS.flatMap(({ title, metrics }) => {
    const left = metrics.filter(({ name }) => !shown.includes(name) && !name.endsWith('_info'));
    return left.length === 0 ? [] : [[title, left.map(plainPanel)] as const];
  });
}

function plainPanel({ name, type, labels, help }: Metric): Panel {
  const by = ['instance', ...labels];
  const unit = name.includes('_seconds') ? 's' : name.includes('_bytes') ? 'bytes' : 'short';
  const value = type === 'counter' ? rate(name) : of(name);
  const title = name.replace(/^haports_|_total$/g, '').replaceAll('_', ' ');
  return lines(title.charAt(0).toUpperCase() + title.slice(1), help, type === 'counter' ? 'cps' : unit, [
    [sum(by.join(', '), value), by.map((label) => `{{${label}}}`).join(' ')],
  ]);
}

/** Row headings, and panels from left to right below each. */
function placed(): readonly object[] {
  let id = 0;
  let y = 0;
  return [...ROWS, ...remainingRows()].flatMap(([title, panels]) => {
    const heading = {
      id: ++id,
      type: 'row',
      title,
      collapsed: false,
      gridPos: { x: 0, y, w: 24, h: 1 },
      panels: [],
    };
    y += 1;
    let x = 0;
    let height = 0;
    const below = panels.map(({ width: w, height: h, ...panel }) => {
      if (x + w > 24) {
        x = 0;
        y += height;
      }
      const gridPos = { x, y, w, h };
      x += w;
      height = h;
      return { id: ++id, ...panel, gridPos };
    });
    y += height;
    return [heading, ...below];
  });
}

function variable(name: string, label: string, query: string): object {
  return {
    ...{ name, label, type: 'query', datasource: PROMETHEUS, definition: query },
    query: { qryType: 1, query, refId: 'PrometheusVariableQueryEditor-VariableQuery' },
    ...{ refresh: 2, sort: 1, multi: true, includeAll: true, allValue: '.*', hide: 0, regex: '' },
    ...{ skipUrlSync: false, options: [], current: { text: ['All'], value: ['$__all'] } },
  };
}

export function dashboard(): object {
  return {
    ...{ uid: 'haports', title: 'haports' },
    description: 'Flows, backends and health of haports, from its own metrics (docs/reference/metrics.md)',
    ...{ tags: ['haports', 'load balancer'], schemaVersion: 41, version: 1, editable: true, graphTooltip: 1 },
    ...{ refresh: '10s', time: { from: 'now-1h', to: 'now' }, timezone: 'browser', timepicker: {} },
    ...{ weekStart: '', fiscalYearStartMonth: 0, liveNow: false, links: [], preload: false },
    annotations: {
      list: [
        {
          ...{ builtIn: 1, datasource: { type: 'grafana', uid: '-- Grafana --' }, enable: true, hide: true },
          ...{ iconColor: 'rgba(0, 211, 255, 1)', name: 'Annotations & Alerts', type: 'dashboard' },
        },
        {
          ...{ datasource: PROMETHEUS, enable: true, iconColor: 'orange', name: 'Reloads' },
          expr: `sum by (instance) (increase(${of('haports_reloads_total')}[1m])) > 0`,
          ...{ step: '60s', titleFormat: 'Reload', textFormat: '{{instance}}' },
        },
      ],
    },
    templating: {
      list: [
        {
          ...{
            name: 'datasource',
            label: 'Data source',
            type: 'datasource',
            query: 'prometheus',
            refresh: 1,
          },
          ...{ regex: '', hide: 0, multi: false, includeAll: false, options: [], current: {} },
        },
        variable('job', 'Job', 'label_values(haports_build_info, job)'),
        variable('instance', 'Instance', 'label_values(haports_build_info{job=~"$job"}, instance)'),
        variable(
          'pool',
          'Pool',
          'label_values(haports_pool_backends{job=~"$job", instance=~"$instance"}, pool)',
        ),
        variable(
          'rule',
          'Rule',
          'label_values(haports_arrivals_total{job=~"$job", instance=~"$instance"}, rule)',
        ),
      ],
    },
    panels: placed(),
  };
}
