import { dirname, resolve } from 'node:path';
import type { IpAddress } from '../model/address.js';
import type { Configuration } from '../model/configuration.js';
import { errorMessage } from '../model/errors.js';
import type { Files } from '../runtime/files.js';
import { bindRules } from './bind-rules.js';
import { AZURE_CHECKS } from './checks/azure.js';
import { captureIssues } from './checks/capture.js';
import {
  adminIssues,
  nameIssues,
  poolIssues,
  probeIssues,
  ruleIssues,
  sourceIssues,
} from './checks/general.js';
import { kernelIssues, kernelLimitIssues, kernelRuleIssues } from './checks/kernel.js';
import { listenerIssues, loopIssues } from './checks/listeners.js';
import { draftOf, type Draft } from './draft.js';
import { formatPath, warning, type Finding, type Issue, type Severity } from './findings.js';
import { configurationDigest, readNamedFiles, resolveConfiguration } from './resolve.js';
import { schemaIssues } from './schema-issues.js';
import { readJsonText, type TextPosition } from './text.js';

/** A configuration that can be used (its findings are warnings and notes), or all that is wrong with it. */
export type ParseResult =
  | { readonly ok: true; readonly configuration: Configuration; readonly findings: readonly Finding[] }
  | { readonly ok: false; readonly findings: readonly Finding[] };

export type LoadResult = ParseResult;

const ORDER: Readonly<Record<Severity, number>> = { error: 0, warning: 1, note: 2 };

/**
 * Parses, validates and resolves the text of a configuration. All findings at once, errors first, then in the order
 * of the text. Never throws, whatever the text.
 */
export function parseConfiguration(text: string, surroundings: Surroundings = {}): ParseResult {
  const json = readJsonText(text);
  if (!json.ok) return { ok: false, findings: [findingOf(json.issue, json.position)] };
  const { configuration, issues } = validate(json.value, surroundings);
  const findings = [...json.issues, ...issues]
    .map((issue) => findingOf(issue, json.locate(issue.path, issue.atKey === true)))
    .sort((a, b) => ORDER[a.severity] - ORDER[b.severity] || byPlace(a, b));
  if (configuration === undefined || json.issues.length > 0) return { ok: false, findings };
  return { ok: true, configuration, findings };
}

/** What `loadConfiguration` needs to know of the machine; see Surroundings. */
export type LoadOptions = Pick<Surroundings, 'ownAddresses'>;

/**
 * Reads and parses a configuration file. Files that it names are read too, relative to its own directory. A file that
 * cannot be read is a finding, not an exception.
 */
export async function loadConfiguration(
  path: string,
  files: Files,
  options: LoadOptions = {},
): Promise<LoadResult> {
  const text = await attempt(files.readText(path));
  if (!text.ok) {
    const message = `Configuration file "${path}" cannot be read: ${text.message}`;
    return { ok: false, findings: [{ severity: 'error', code: 'LB_CONFIG_UNREADABLE', path: '', message }] };
  }
  return loadConfigurationText(text.value, dirname(path), files, options);
}

/** As loadConfiguration, for a text that is already here. Files that it names are relative to `directory`. */
export async function loadConfigurationText(
  text: string,
  directory: string,
  files: Files,
  options: LoadOptions = {},
): Promise<LoadResult> {
  const named = new Map<string, Attempt>();
  for (const file of namedFiles(text)) {
    named.set(file, await attempt(files.readText(resolve(directory, file))));
  }
  const readFile = (file: string): string => {
    const outcome = named.get(file);
    if (outcome?.ok === true) return outcome.value;
    throw new Error(outcome?.message ?? 'not read');
  };
  return parseConfiguration(text, { ...options, readFile });
}

type Attempt =
  { readonly ok: true; readonly value: string } | { readonly ok: false; readonly message: string };

async function attempt(reading: Promise<string>): Promise<Attempt> {
  try {
    return { ok: true, value: await reading };
  } catch (thrown) {
    return { ok: false, message: errorMessage(thrown) };
  }
}

/** CA files, and certificate and key of the admin API, before anything is known to be right. */
function namedFiles(text: string): ReadonlySet<string> {
  const json = readJsonText(text);
  if (!json.ok) return new Set();
  const probes = member(json.value, 'probes');
  const tls = member(member(json.value, 'admin'), 'tls');
  const files: unknown[] = [member(tls, 'certificate'), member(tls, 'key')];
  if (Array.isArray(probes)) files.push(...probes.map((probe: unknown) => member(probe, 'ca')));
  return new Set(files.filter((file): file is string => typeof file === 'string' && file !== ''));
}

function member(value: unknown, key: string): unknown {
  if (typeof value !== 'object' || value === null) return undefined;
  return (value as Readonly<Record<string, unknown>>)[key];
}

function findingOf(
  { severity, code, path, message, ...rest }: Issue,
  { line, column }: TextPosition,
): Finding {
  const { found, expected, reason } = rest;
  return {
    severity,
    code,
    path: formatPath(path),
    line,
    column,
    message,
    ...(found === undefined ? {} : { found }),
    ...(expected === undefined ? {} : { expected }),
    ...(reason === undefined ? {} : { reason }),
  };
}

function byPlace(a: Finding, b: Finding): number {
  return (a.line ?? 0) - (b.line ?? 0) || (a.column ?? 0) - (b.column ?? 0);
}

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
