import type { IpAddress } from '../model/address.js';
import type { Configuration } from '../model/configuration.js';
import { errorMessage } from '../model/errors.js';
import { AZURE_CHECKS } from './azure/checks.js';
import { bindRules } from './bind-rules.js';
import { listenerIssues } from './check-listeners.js';
import { loopIssues } from './check-loops.js';
import { nameIssues } from './check-names.js';
import { poolIssues } from './check-pools.js';
import { probeIssues } from './check-probes.js';
import { ruleIssues } from './check-rules.js';
import { sourceIssues } from './check-sources.js';
import { configurationDigest } from './digest.js';
import { draftOf, type Draft } from './draft.js';
import { error, warning, type Issue } from './finding.js';
import { notYetIssues } from './not-yet.js';
import { resolveConfiguration } from './resolve.js';
import { schemaIssues } from './schema-issues.js';

/** What the outside world adds to a configuration. */
export interface Surroundings {
  /** Addresses of this machine, for wildcard frontends; loopback need not be in it. @default none */
  readonly ownAddresses?: readonly IpAddress[];
  /** The text of a file that the configuration names. Throws if it cannot. Without it, files are refused. */
  readonly readFile?: (path: string) => string;
}

export interface Validation {
  /** Present if no issue is an error. */
  readonly configuration?: Configuration;
  readonly issues: readonly Issue[];
}

/** Checks a parsed configuration in every respect and tells everything at once. Never throws on any JSON value. */
export function validate(raw: unknown, { ownAddresses = [], readFile }: Surroundings): Validation {
  const shape = schemaIssues(raw);
  const draft = draftOf(raw);
  if (draft === undefined) return { issues: shape };
  const { rules, issues: binding } = bindRules(draft);
  const context = { compat: draft.root.compat, draft, rules };
  const authorities = readAuthorities(draft, readFile);
  const issues = [
    ...shape,
    ...notYetIssues(draft),
    ...nameIssues(draft),
    ...probeIssues(draft),
    ...poolIssues(draft),
    ...binding,
    ...ruleIssues(rules),
    ...listenerIssues(draft, rules),
    ...loopIssues(draft, rules, ownAddresses),
    ...sourceIssues(draft, rules, ownAddresses),
    ...AZURE_CHECKS.flatMap((check) => check(context)),
    ...authorities.issues,
    ...nothingToDo(draft),
  ];
  if (issues.some(({ severity }) => severity === 'error')) return { issues };
  const digest = configurationDigest(raw);
  return {
    issues,
    configuration: resolveConfiguration({ draft, rules, authorities: authorities.texts, digest }),
  };
}

function nothingToDo(draft: Draft): Issue[] {
  if (draft.declared.rules.length > 0 || draft.rules.length > 0) return [];
  return [warning('LB_NO_RULES', ['rules'], 'There are no rules, so nothing is balanced')];
}

function readAuthorities(draft: Draft, readFile: Surroundings['readFile']) {
  const texts = new Map<string, string>();
  const issues: Issue[] = [];
  for (const { path, value: probe } of draft.probes) {
    if (probe.ca === undefined) continue;
    const refuse = (message: string, expected: string) =>
      issues.push(
        error('LB_CONFIG_UNREADABLE', [...path, 'ca'], message, { found: `"${probe.ca}"`, expected }),
      );
    if (readFile === undefined) {
      refuse('Files can only be named in a configuration file', 'no "ca" here');
      continue;
    }
    try {
      const text = readFile(probe.ca);
      if (/-----BEGIN (?:TRUSTED )?CERTIFICATE-----/.test(text)) texts.set(probe.name, text);
      else refuse(`File "${probe.ca}" holds no certificate`, 'a PEM file with a certificate');
    } catch (thrown) {
      refuse(`File "${probe.ca}" cannot be read: ${errorMessage(thrown)}`, 'a PEM file that can be read');
    }
  }
  return { texts, issues };
}
