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
import { isObject, readShape, type JsonObject, type Shape, type Written } from './read.js';
import { configurationOf, resolve, type NamedTexts } from './resolve.js';
import { readJsonText, type JsonText, type TextPosition } from './text.js';

/** A configuration that can be used (its findings are warnings and notes), or all that is wrong with it. */
export type ParseResult =
  | { readonly ok: true; readonly configuration: Configuration; readonly findings: readonly Finding[] }
  | { readonly ok: false; readonly findings: readonly Finding[] };

/** What the outside world adds to a configuration. */
export interface Surroundings {
  /** Addresses of this machine, for wildcard frontends; loopback need not be in it. @default none */
  readonly ownAddresses?: readonly IpAddress[];
  /** The text of a file that the configuration names. Throws if it cannot. Without it, files are refused. */
  readonly readFile?: (path: string) => string;
}

/**
 * Parses, validates and resolves the text of a configuration. All findings at once, errors first, then in the order
 * of the text. Never throws, whatever the text.
 */
export function parseConfiguration(text: string, surroundings: Surroundings = {}): ParseResult {
  const json = readJsonText(text);
  if (!json.ok) return { ok: false, findings: [findingOf(json.issue, json.position)] };
  return validate(json, readShape(json.value), surroundings);
}

/** What `loadConfiguration` needs to know of the machine; see Surroundings. */
type Machine = Pick<Surroundings, 'ownAddresses'>;

/**
 * Reads and parses a configuration file. Files that it names are read too, relative to its own directory. A file that
 * cannot be read is a finding, not an exception.
 */
export async function loadConfiguration(
  path: string,
  files: Files,
  machine: Machine = {},
): Promise<ParseResult> {
  let text: string;
  try {
    text = await files.readText(path);
  } catch (thrown) {
    const message = `Configuration file "${path}" cannot be read: ${errorMessage(thrown)}`;
    return { ok: false, findings: [{ severity: 'error', code: 'LB_CONFIG_UNREADABLE', path: '', message }] };
  }
  return loadConfigurationText(text, dirname(path), files, machine);
}

/** As loadConfiguration, for a text that is already here. Files that it names are relative to `directory`. */
export async function loadConfigurationText(
  text: string,
  directory: string,
  files: Files,
  { ownAddresses }: Machine = {},
): Promise<ParseResult> {
  const json = readJsonText(text);
  if (!json.ok) return parseConfiguration(text);
  const shape = readShape(json.value);
  const readings = new Map<string, PromiseSettledResult<string>>();
  for (const { file } of shape.written === undefined ? [] : namedFiles(shape.written)) {
    const [reading] = await Promise.allSettled([files.readText(resolvePath(directory, file))]);
    readings.set(file, reading);
  }
  const readFile = (file: string): string => {
    const reading = readings.get(file);
    if (reading?.status === 'fulfilled') return reading.value;
    throw new Error(errorMessage(reading?.reason));
  };
  return validate(json, shape, { ownAddresses, readFile });
}

const CHECKS: readonly Check[] = [
  ...[...NAME_CHECKS, ...PROBE_CHECKS, ...POOL_CHECKS],
  ({ portIssues }) => portIssues,
  ...[...RULE_CHECKS, ...LISTENER_CHECKS, ...LOOP_CHECKS, ...SOURCE_CHECKS],
  ...[...ROOT_CHECKS, ...CAPTURE_CHECKS, ...KERNEL_CHECKS, ...AZURE_CHECKS],
];

const ORDER: Readonly<Record<Severity, number>> = { error: 0, warning: 1, note: 2 };

/** Checks what was read in every respect, and reports everything at once. */
function validate(
  json: Extract<JsonText, { readonly ok: true }>,
  { written, issues: shape }: Shape,
  { ownAddresses = [], readFile }: Surroundings,
): ParseResult {
  const findingsWith = (issues: readonly Issue[]) =>
    [...json.issues, ...shape, ...issues]
      .map((issue) => findingOf(issue, json.locate(issue.path, issue.atKey === true)))
      .sort((a, b) => ORDER[a.severity] - ORDER[b.severity] || byPlace(a, b));
  if (written === undefined) return { ok: false, findings: findingsWith([]) };
  const files = readNamedFiles(written, readFile);
  const draft = resolve(written, files.texts, ownAddresses);
  const findings = findingsWith([...CHECKS.flatMap((check) => check(draft)), ...files.issues]);
  if (findings[0]?.severity === 'error') return { ok: false, findings };
  return {
    ok: true,
    configuration: configurationOf(draft, files.texts, configurationDigest(written.raw)),
    findings,
  };
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

/** JSON with the keys of every object in order, so that equal values have equal text. Takes what JSON.parse gives. */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, part: unknown) =>
    isObject(part) ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1))) : part,
  );
}

/**
 * SHA-256, in hex, of the canonical JSON of what the operator wrote. `$schema` does not count; the contents of files
 * that the configuration names do not either. Nor does the admin token: the digest is in logs and metrics, where a
 * weak token could be found by trying.
 */
function configurationDigest({ $schema: _, ...raw }: JsonObject): string {
  const admin = isObject(raw['admin']) ? { admin: { ...raw['admin'], token: undefined } } : {};
  return createHash('sha256')
    .update(canonicalJson({ ...raw, ...admin }))
    .digest('hex');
}

const CERTIFICATE = { holds: 'certificate', pem: /-----BEGIN (?:TRUSTED )?CERTIFICATE-----/ };
const KEY = {
  holds: 'private key without a passphrase',
  pem: /-----BEGIN (?:EC |RSA )?PRIVATE KEY-----/,
};

/** A PEM file that the configuration names, and what must be in it. */
interface NamedFile {
  readonly at: Path;
  readonly file: string;
  readonly kind: typeof CERTIFICATE;
}

function namedFiles({ probes, root: { admin } }: Written): readonly NamedFile[] {
  const authorities = probes.flatMap(({ at, value: { ca: file } }) =>
    file === undefined ? [] : [{ at: [...at, 'ca'], file, kind: CERTIFICATE }],
  );
  if (admin?.tls === undefined) return authorities;
  const { certificate, key } = admin.tls;
  return [
    ...authorities,
    { at: [...TLS, 'certificate'], file: certificate, kind: CERTIFICATE },
    { at: [...TLS, 'key'], file: key, kind: KEY },
  ];
}

const TLS: Path = ['admin', 'tls'];

/**
 * Reads every file that the configuration names.
 * @param readFile - the text of a file, or throws; undefined: files are refused
 */
function readNamedFiles(
  written: Written,
  readFile: Surroundings['readFile'],
): { readonly texts: NamedTexts; readonly issues: readonly Issue[] } {
  const texts = new Map<string, string>();
  const issues: Issue[] = [];
  for (const { at, file, kind } of namedFiles(written)) {
    const unreadable = (message: string, expected: string) =>
      issues.push(error('LB_CONFIG_UNREADABLE', at, message, { found: `"${file}"`, expected }));
    try {
      const text = readFile?.(file);
      if (text === undefined) {
        unreadable('Files can only be named in a configuration file', `no "${String(at.at(-1))}" here`);
      } else if (kind.pem.test(text)) texts.set(file, text);
      else unreadable(`File "${file}" holds no ${kind.holds}`, `a PEM file with a ${kind.holds}`);
    } catch (thrown) {
      unreadable(`File "${file}" cannot be read: ${errorMessage(thrown)}`, 'a PEM file that can be read');
    }
  }
  const tls = written.root.admin?.tls;
  if (tls !== undefined && issues.length === 0) {
    const wrong = pairProblem(texts.get(tls.certificate) ?? '', texts.get(tls.key) ?? '');
    const message = `Certificate and key cannot be used together: ${wrong}`;
    const found = `"${tls.certificate}" and "${tls.key}"`;
    const expected = 'a certificate and its own private key';
    if (wrong !== undefined) issues.push(error('LB_TLS_PAIR', TLS, message, { found, expected }));
  }
  return { texts, issues };
}

function pairProblem(certificate: string, key: string): string | undefined {
  try {
    const belongs = new X509Certificate(certificate).checkPrivateKey(createPrivateKey(key));
    return belongs ? undefined : 'the key is that of another certificate';
  } catch (thrown) {
    return errorMessage(thrown);
  }
}
