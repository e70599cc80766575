import type { IpAddress } from '../model/address.js';
import type { Configuration } from '../model/configuration.js';
import { AZURE_CHECKS } from './azure/checks.js';
import { bindRules } from './bind-rules.js';
import { adminIssues } from './check-admin.js';
import { captureIssues } from './check-capture.js';
import { kernelIssues } from './check-kernel.js';
import { kernelLimitIssues } from './check-kernel-limits.js';
import { kernelRuleIssues } from './check-kernel-rules.js';
import { listenerIssues } from './check-listeners.js';
import { loopIssues } from './check-loops.js';
import { nameIssues } from './check-names.js';
import { poolIssues } from './check-pools.js';
import { probeIssues } from './check-probes.js';
import { ruleIssues } from './check-rules.js';
import { sourceIssues } from './check-sources.js';
import { configurationDigest } from './digest.js';
import { draftOf, type Draft } from './draft.js';
import { warning, type Issue } from './finding.js';
import { readNamedFiles } from './named-files.js';
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
  const texts = readNamedFiles(draft, readFile);
  const issues = [
    ...shape,
    ...nameIssues(draft),
    ...probeIssues(draft),
    ...poolIssues(draft),
    ...binding,
    ...ruleIssues(draft, rules),
    ...listenerIssues(draft, rules),
    ...loopIssues(draft, rules, ownAddresses),
    ...sourceIssues(draft, rules, ownAddresses),
    ...adminIssues(draft),
    ...captureIssues(draft, rules),
    ...kernelIssues(draft, rules, ownAddresses),
    ...kernelLimitIssues(draft),
    ...kernelRuleIssues(draft, rules),
    ...AZURE_CHECKS.flatMap((check) => check(context)),
    ...texts.issues,
    ...nothingToDo(draft),
  ];
  if (issues.some(({ severity }) => severity === 'error')) return { issues };
  const digest = configurationDigest(raw);
  return { issues, configuration: resolveConfiguration({ draft, rules, texts, digest }) };
}

function nothingToDo(draft: Draft): Issue[] {
  if (draft.declared.rules.length > 0 || draft.rules.length > 0) return [];
  return [warning('LB_NO_RULES', ['rules'], 'There are no rules, so nothing is balanced')];
}
