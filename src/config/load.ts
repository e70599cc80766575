import { X509Certificate, createHash, createPrivateKey } from 'node:crypto';
import { dirname, resolve as resolvePath } from 'node:path';
import type { IpAddress } from '../model/address.js';
import type { Configuration } from '../model/configuration.js';
import { errorMessage } from '../model/errors.js';
import type { Files } from '../runtime/files.js';
import { AZURE_CHECKS } from './checks/azure.js';
import { CAPTURE_CHECKS } from './checks/capture.js';
import {
  NAME_CHECKS,
  POOL_CHECKS,
  PROBE_CHECKS,
  ROOT_CHECKS,
  RULE_CHECKS,
  SOURCE_CHECKS,
} from './checks/general.js';
import type { Check } from './checks/check.js';
import { KERNEL_CHECKS } from './checks/kernel.js';
import { LISTENER_CHECKS, LOOP_CHECKS } from './checks/listeners.js';
import { error, formatPath, type Finding, type Issue, type Path, type Severity } from './findings.js';
import { readShape, type Written } from './read.js';
import { configurationOf, resolve, type NamedTexts } from './resolve.js';
import { readJsonText, type JsonText, type TextPosition } from './text.js';

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
  return parseJson(readJsonText(text), surroundings);
}

function parseJson(json: JsonText, surroundings: Surroundings): ParseResult {
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
  const json = readJsonText(text);
  const named = new Map<string, Attempt>();
  for (const file of json.ok ? namedFiles(json.value) : []) {
    named.set(file, await attempt(files.readText(resolvePath(directory, file))));
  }
  const readFile = (file: string): string => {
    const outcome = named.get(file);
    if (outcome?.ok === true) return outcome.value;
    throw new Error(outcome?.message ?? 'not read');
  };
  return parseJson(json, { ...options, readFile });
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
function namedFiles(raw: unknown): ReadonlySet<string> {
  const probes = member(raw, 'probes');
  const tls = member(member(raw, 'admin'), 'tls');
  const authorities = Array.isArray(probes) ? probes.map((probe: unknown) => member(probe, 'ca')) : [];
  const files = [member(tls, 'certificate'), member(tls, 'key'), ...authorities];
  return new Set(files.filter((file): file is string => typeof file === 'string' && file !== ''));
}

function member(value: unknown, key: string): unknown {
  if (typeof value !== 'object' || value === null) return undefined;
  return (value as Readonly<Record<string, unknown>>)[key];
}

function findingOf(
  { severity, code, path, message, atKey: _, ...details }: Issue,
  { line, column }: TextPosition,
): Finding {
  return { severity, code, path: formatPath(path), line, column, message, ...details };
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

const CHECKS: readonly Check[] = [
  ...[...NAME_CHECKS, ...PROBE_CHECKS, ...POOL_CHECKS],
  ({ portIssues }) => portIssues,
  ...[...RULE_CHECKS, ...LISTENER_CHECKS, ...LOOP_CHECKS, ...SOURCE_CHECKS],
  ...[...ROOT_CHECKS, ...CAPTURE_CHECKS, ...KERNEL_CHECKS, ...AZURE_CHECKS],
];

/** Checks a parsed configuration in every respect and reports everything at once. Never throws on any JSON value. */
export function validate(
  raw: unknown,
  { ownAddresses = [], readFile }: Surroundings,
): { readonly configuration?: Configuration; readonly issues: readonly Issue[] } {
  const { written, issues: shape } = readShape(raw);
  if (written === undefined) return { issues: shape };
  const texts = readNamedFiles(written, readFile);
  const draft = resolve(written, texts, ownAddresses);
  const issues = [...shape, ...CHECKS.flatMap((check) => check(draft)), ...texts.issues];
  if (issues.some(({ severity }) => severity === 'error')) return { issues };
  return { issues, configuration: configurationOf(draft, texts, configurationDigest(raw)) };
}

/** JSON with the keys of every object in order, so that equal values have equal text. Takes what JSON.parse gives. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map((item) => canonicalJson(item)).join(',')}]`;
  if (typeof value === 'object' && value !== null) {
    const members = Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, member]) => `${JSON.stringify(key)}:${canonicalJson(member)}`);
    return `{${members.join(',')}}`;
  }
  return JSON.stringify(value);
}

/**
 * SHA-256, in hex, of the canonical JSON of what the operator wrote. `$schema` does not count; the contents of files
 * that the configuration names do not either. Nor does the admin token: the digest is in logs and metrics, where a
 * weak token could be found by trying.
 */
export function configurationDigest(raw: unknown): string {
  const counted =
    typeof raw === 'object' && raw !== null && !Array.isArray(raw)
      ? Object.fromEntries(
          Object.entries(raw)
            .filter(([key]) => key !== '$schema')
            .map(([key, value]) => [key, key === 'admin' ? withoutToken(value) : value]),
        )
      : raw;
  return createHash('sha256').update(canonicalJson(counted)).digest('hex');
}

function withoutToken(admin: unknown): unknown {
  if (typeof admin !== 'object' || admin === null) return admin;
  return Object.fromEntries(Object.entries(admin).filter(([key]) => key !== 'token'));
}

interface PemKind {
  /** `certificate` */
  readonly holds: string;
  readonly pem: RegExp;
}

const CERTIFICATE: PemKind = { holds: 'certificate', pem: /-----BEGIN (?:TRUSTED )?CERTIFICATE-----/ };
const KEY: PemKind = {
  holds: 'private key without a passphrase',
  pem: /-----BEGIN (?:EC |RSA )?PRIVATE KEY-----/,
};

/**
 * Reads every file that the configuration names.
 * @param readFile - the text of a file, or throws; undefined: files are refused
 */
function readNamedFiles(
  { probes, root: { admin } }: Written,
  readFile: Surroundings['readFile'],
): NamedTexts & { readonly issues: readonly Issue[] } {
  const issues: Issue[] = [];
  const read = (file: string, path: Path, kind: PemKind): string | undefined => {
    const { text, message, expected = `no "${String(path.at(-1))}" here` } = readPem(file, kind, readFile);
    if (message !== undefined) {
      issues.push(error('LB_CONFIG_UNREADABLE', path, message, { found: `"${file}"`, expected }));
    }
    return text;
  };

  const authorities = new Map<string, string>();
  for (const { path, value: probe } of probes) {
    const text = probe.ca === undefined ? undefined : read(probe.ca, [...path, 'ca'], CERTIFICATE);
    if (text !== undefined) authorities.set(probe.name, text);
  }
  const tls = admin?.tls;
  if (tls === undefined) return { authorities, issues };
  const certificate = read(tls.certificate, ['admin', 'tls', 'certificate'], CERTIFICATE);
  const key = read(tls.key, ['admin', 'tls', 'key'], KEY);
  if (certificate === undefined || key === undefined) return { authorities, issues };
  const wrong = pairProblem(certificate, key);
  if (wrong === undefined) return { authorities, adminTls: { certificate, key }, issues };
  const message = `Certificate and key cannot be used together: ${wrong}`;
  const found = `"${tls.certificate}" and "${tls.key}"`;
  const expected = 'a certificate and its own private key';
  issues.push(error('LB_TLS_PAIR', ['admin', 'tls'], message, { found, expected }));
  return { authorities, issues };
}

function readPem(
  file: string,
  { holds, pem }: PemKind,
  readFile: Surroundings['readFile'],
): { readonly text?: string; readonly message?: string; readonly expected?: string } {
  if (readFile === undefined) return { message: 'Files can only be named in a configuration file' };
  try {
    const text = readFile(file);
    if (pem.test(text)) return { text };
    return { message: `File "${file}" holds no ${holds}`, expected: `a PEM file with a ${holds}` };
  } catch (thrown) {
    const message = `File "${file}" cannot be read: ${errorMessage(thrown)}`;
    return { message, expected: 'a PEM file that can be read' };
  }
}

function pairProblem(certificate: string, key: string): string | undefined {
  try {
    const belongs = new X509Certificate(certificate).checkPrivateKey(createPrivateKey(key));
    return belongs ? undefined : 'the key is that of another certificate';
  } catch (thrown) {
    return errorMessage(thrown);
  }
}
