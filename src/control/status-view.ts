import type { Configuration } from '../model/configuration.js';
import type { DrainStatus } from '../model/drain.js';
import type { StatusView } from '../model/operator-views.js';
import { statusProblems, type ProblemInputs } from './status-problems.js';
import { wholeTraffic } from './traffic-view.js';

/** What of a status does not change while the process runs. */
export type ProcessIdentity = Pick<StatusView, 'version' | 'pid' | 'startedAtMs' | 'workers'>;

/** Where the configuration is from, and what the last reload said. */
export type ConfigurationNews = Omit<StatusView['configuration'], 'digest'>;

export interface StatusInputs extends ProblemInputs {
  readonly identity: ProcessIdentity;
  /** The present one, applied or not. */
  readonly configuration: Configuration;
  readonly news: ConfigurationNews;
  readonly drains: readonly DrainStatus[];
}

/** The whole balancer at a glance. Pure. */
export function statusView(inputs: StatusInputs): StatusView {
  const { identity, configuration, news, state, report, samples, drains } = inputs;
  const counters = samples.latest?.counters;
  return {
    ...identity,
    workersLost: counters?.workersLost ?? 0,
    configuration: { ...news, digest: configuration.digest },
    revision: state?.revision ?? 0,
    problems: statusProblems(inputs),
    listeners: report?.listeners ?? { tcp: 0, udp: 0 },
    table: counters?.table ?? emptyTable(configuration),
    traffic: wholeTraffic(samples),
    backends: countBackends(inputs),
    drains,
    ...(inputs.kernel === undefined ? {} : { kernel: inputs.kernel }),
  };
}

function emptyTable({ limits }: Configuration): StatusView['table'] {
  return {
    tcp: { used: 0, limit: limits.tcpFlows },
    udp: { used: 0, limit: limits.udpFlows },
    embryonic: { used: 0, limit: limits.embryonicFlows },
  };
}

/** One that serves in several views serves once. */
function countBackends({ configuration, state }: StatusInputs): StatusView['backends'] {
  const serving = new Set(
    (state?.views ?? []).flatMap(({ backends }) =>
      backends.filter((member) => member.serving).map(({ backend }) => backend.id),
    ),
  );
  return {
    total: configuration.backendPools.reduce((sum, { backends }) => sum + backends.length, 0),
    serving: serving.size,
  };
}
