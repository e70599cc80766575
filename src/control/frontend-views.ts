import type { ForwardingState } from '../model/forwarding-state.js';
import type { FrontendView } from '../model/operator-views.js';
import { NO_TRAFFIC, trafficBy, type ViewSamples } from './traffic-view.js';

/** In the order of the configuration. Pure. */
export function frontendViews(
  { configuration }: ForwardingState,
  samples: ViewSamples,
): readonly FrontendView[] {
  const frontendOf = new Map(configuration.rules.map(({ name, frontend }) => [name, frontend]));
  const traffic = trafficBy(samples, ({ rule }) => frontendOf.get(rule));
  // A frontend may well be named "constructor", which every plain object seems to have.
  const listeners = new Map(Object.entries(samples.latest?.counters.listeners ?? {}));
  return configuration.frontends.map(({ name, address }) => ({
    name,
    address: address.text,
    rules: configuration.rules.filter(({ frontend }) => frontend === name).map((rule) => rule.name),
    listeners: listeners.get(name) ?? { open: 0, wanted: 0 },
    traffic: traffic.get(name) ?? NO_TRAFFIC,
  }));
}
