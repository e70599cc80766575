import { dirname } from 'node:path';
import type { Operations } from './admin/operations.js';
import {
  loadConfiguration,
  loadConfigurationText,
  type LoadOptions,
  type LoadResult,
} from './config/load.js';
import { allFlows } from './control/all-flows.js';
import type { Balancer } from './control/balancer.js';
import { CounterSampler } from './control/counter-sampler.js';
import { Drains } from './control/drains.js';
import { FlowLister } from './control/flow-list.js';
import { liveExplain } from './control/live-explain.js';
import { Monitors } from './control/monitors/monitors.js';
import { Operator } from './control/operator.js';
import type { ProbeHealth } from './control/probe-health.js';
import { Reloader } from './control/reload.js';
import { simulate } from './control/simulate.js';
import { Views } from './control/views.js';
import type { DataPlane } from './dataplane/data-plane.js';
import { ownAddresses } from './dataplane/userspace/own-addresses.js';
import type { ControlEvent } from './model/control-events.js';
import { BalancerError } from './model/errors.js';
import type { ForwardingState } from './model/forwarding-state.js';
import { VERSION } from './model/version.js';
import type { EventFeed } from './observe/event-feed.js';
import { systemClock as clock } from './runtime/clock.js';
import { systemFiles } from './runtime/files.js';
import type { Hash32 } from './selection/hasher.js';
import { createPicker } from './selection/picker.js';

export interface OperationsParts {
  readonly balancer: Balancer;
  readonly plane: DataPlane;
  readonly health: ProbeHealth;
  readonly hash: Hash32;
  readonly feed: EventFeed;
  /** Path of the configuration file: files that a configuration names are relative to it. */
  readonly source: string;
  readonly onEvent: (event: ControlEvent) => void;
  readonly upgrade: Operations['upgrade'];
}

/** Everything that operators see and do, and the monitors that watch for them. */
export interface RunningOperations {
  readonly operations: Operations;
  readonly reloader: Reloader;
  readonly monitors: Monitors;
  readonly drains: Drains;
  /** Takes every event of the control plane. */
  onEvent(event: ControlEvent): void;
  /** Once the plane has started. */
  start(): void;
  stop(): void;
}

/** Reads and checks a configuration file against this machine. What is wrong with it is in the result. */
export function loadConfigurationFile(path: string): Promise<LoadResult> {
  return loadConfiguration(path, systemFiles, thisMachine());
}

function thisMachine(): LoadOptions {
  return { ownAddresses: [...ownAddresses(4), ...ownAddresses(6)] };
}

export function createOperations(parts: OperationsParts): RunningOperations {
  const { balancer, plane, health, hash, feed, source, onEvent } = parts;
  const picker = createPicker(hash);
  const sampler = new CounterSampler({ clock, plane });
  const drains = new Drains({
    clock,
    plane,
    operator: balancer.operator,
    refresh: () => balancer.refresh(),
    onEvent,
  });
  const views = new Views(
    { clock, balancer, sampler, health, drains, kernel: () => plane.kernelReport?.() },
    {
      source,
      version: VERSION,
      pid: process.pid,
      startedAtMs: clock.wallMs(),
      workers: balancer.configuration.workers,
    },
  );
  const operator = new Operator({ balancer, drains, onEvent });
  const lister = new FlowLister({ clock, plane, configuration: () => balancer.configuration });
  const parse = (text: string): Promise<LoadResult> =>
    loadConfigurationText(text, dirname(source), systemFiles, thisMachine());
  const reloader = new Reloader({ clock, balancer, plane, drains, picker, parse, onEvent });
  const monitors = new Monitors({ clock, onEvent });
  sampler.subscribe((sample) => {
    if (balancer.state !== undefined) monitors.observe(sample, balancer.state);
  });
  plane.subscribe((events) => monitors.plane(events));

  const operations: Operations = {
    status: () => views.status(),
    frontends: () => views.frontends(),
    rules: () => views.rules(),
    pools: () => views.pools(),
    flows: (query) => lister.list(query),
    explain: (tuple) => liveExplain({ picker, plane, tuple, state: stateOf(balancer) }),
    setAdminState: (backend, state) => operator.setAdminState(backend, state),
    setWeight: (backend, weight) => operator.setWeight(backend, weight),
    drain: (backend, request) => operator.drain(backend, request),
    cancelDrain: (backend) => operator.cancelDrain(backend),
    drains: () => operator.drains(),
    plan: (text) => reloader.plan(text),
    reload: (text, options) => reloader.reload(text, { cause: 'admin API', ...options }),
    simulate: (request) =>
      simulate(request, {
        picker,
        configuration: balancer.configuration,
        inputs: balancer.inputs(),
        compile: (configuration, inputs) => balancer.preview(configuration, inputs),
        flows: () => allFlows(plane),
      }),
    upgrade: parts.upgrade,
    events: feed,
  };
  return {
    operations,
    reloader,
    monitors,
    drains,
    onEvent: (event) => views.onEvent(event),
    start: () => sampler.start(),
    stop() {
      sampler.stop();
      monitors.stop();
      drains.stop();
    },
  };
}

function stateOf({ state }: Balancer): ForwardingState {
  if (state !== undefined) return state;
  throw new BalancerError('The balancer has not started yet', { code: 'LB_CONFLICT', source: 'usage' });
}
