import { formatEndpoint } from '../model/address.js';
import type { Configuration, Frontend } from '../model/configuration.js';
import { formatPortSet, portSetContains } from '../model/port-set.js';
import type { Rule } from '../model/rule.js';
import { demoBackends } from './demo-backends.js';

export interface BannerOptions {
  /** How haports is called here, with the configuration: `npx haports explain -c config.json`. */
  readonly explainCommand: string;
}

/** What `haports demo` prints: what runs, what to try, where to look. Ends with a line feed. */
export function demoBanner(configuration: Configuration, options: BannerOptions): string {
  const backends = demoBackends(configuration);
  const lines = configuration.rules.map((rule) => ruleLine(configuration, rule));
  const rule = bestToTry(configuration);
  const frontend = rule === undefined ? undefined : frontendOf(configuration, rule);
  const port = rule?.ports[0]?.first;
  lines.push('');
  if (rule !== undefined && frontend !== undefined && port !== undefined) {
    const { text } = frontend.address;
    const protocols: readonly string[] = rule.protocols;
    const browserPort = portSetContains(rule.ports, 8080) ? 8080 : port;
    if (protocols.includes('tcp')) lines.push(`  TCP      printf 'hello\\n' | nc -N ${text} ${port}`);
    if (protocols.includes('udp')) lines.push(`  UDP      printf hello | nc -u -w1 ${text} ${port}`);
    if (protocols.includes('tcp')) {
      lines.push(`  browser  http://${formatEndpoint(frontend.address, browserPort)}/`);
    }
    const client = formatEndpoint(frontend.address, 40_000);
    const target = formatEndpoint(frontend.address, port);
    lines.push(`  explain  ${options.explainCommand} ${protocols[0] ?? 'tcp'} ${client} ${target}`);
  }
  const first = backends.find(({ healthPort }) => healthPort > 0);
  if (first !== undefined) {
    const endpoint = formatEndpoint(first.address, first.healthPort);
    lines.push(`  sick     curl -X POST http://${endpoint}/sick     (and /well again)`);
  }
  const { admin } = configuration;
  if (admin?.http !== undefined) {
    const scheme = admin.tls === undefined ? 'http' : 'https';
    lines.push(
      `  operate  ${scheme}://${formatEndpoint(admin.http.address, admin.http.port)}/     (dashboard)`,
    );
  }
  if (configuration.metrics !== undefined) {
    const { address, port: metricsPort } = configuration.metrics;
    lines.push(`  metrics  http://${formatEndpoint(address, metricsPort)}/metrics`);
  }
  lines.push('', 'Ctrl-C stops it all.', '');
  return lines.join('\n');
}

function ruleLine(configuration: Configuration, rule: Rule): string {
  const pool = configuration.backendPools.find(({ name }) => name === rule.backendPool);
  const names = (pool?.backends ?? []).map(({ name }) => name).join(', ');
  const address = frontendOf(configuration, rule)?.address.text ?? rule.frontend;
  const protocols = rule.protocols.map((protocol) => protocol.toUpperCase()).join(' and ');
  return `haports balances ${address}, ${protocols}, ports ${formatPortSet(rule.ports)}, over ${names}`;
}

/** A rule on IPv4 that serves both protocols is the easiest to type for. */
function bestToTry(configuration: Configuration): Rule | undefined {
  const score = (rule: Rule) =>
    rule.protocols.length * 2 + (frontendOf(configuration, rule)?.address.family === 4 ? 1 : 0);
  return configuration.rules.toSorted((a, b) => score(b) - score(a))[0];
}

function frontendOf(configuration: Configuration, rule: Rule): Frontend | undefined {
  return configuration.frontends.find(({ name }) => name === rule.frontend);
}
