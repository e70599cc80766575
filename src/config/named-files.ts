import { createPrivateKey, X509Certificate } from 'node:crypto';
import { errorMessage } from '../model/errors.js';
import type { Draft } from './draft.js';
import { error, type Issue, type Path } from './finding.js';

/** The texts of the files that a configuration names. */
export interface NamedTexts {
  /** Probe name to the PEM text of its CA file. */
  readonly authorities: ReadonlyMap<string, string>;
  /** Of the admin API. Present if both could be read and belong together. */
  readonly adminTls?: { readonly certificate: string; readonly key: string };
  readonly issues: readonly Issue[];
}

interface Kind {
  /** `certificate` */
  readonly holds: string;
  readonly pem: RegExp;
}

const CERTIFICATE: Kind = { holds: 'certificate', pem: /-----BEGIN (?:TRUSTED )?CERTIFICATE-----/ };
const KEY: Kind = {
  holds: 'private key without a passphrase',
  pem: /-----BEGIN (?:EC |RSA )?PRIVATE KEY-----/,
};

/**
 * Reads every file that the configuration names.
 * @param readFile - the text of a file, or throws; undefined: files are refused
 */
export function readNamedFiles(
  { probes, root: { admin } }: Draft,
  readFile: ((path: string) => string) | undefined,
): NamedTexts {
  const issues: Issue[] = [];
  const read = (file: string, path: Path, kind: Kind): string | undefined => {
    const outcome = readPem(file, kind, readFile);
    if (outcome.ok) return outcome.text;
    const { message, expected } = outcome;
    const key = String(path.at(-1));
    issues.push(
      error('LB_CONFIG_UNREADABLE', path, message, {
        found: `"${file}"`,
        expected: expected ?? `no "${key}" here`,
      }),
    );
    return undefined;
  };

  const authorities = new Map<string, string>();
  for (const { path, value: probe } of probes) {
    const text = probe.ca === undefined ? undefined : read(probe.ca, [...path, 'ca'], CERTIFICATE);
    if (text !== undefined) authorities.set(probe.name, text);
  }
  if (admin?.tls === undefined) return { authorities, issues };
  const certificate = read(admin.tls.certificate, ['admin', 'tls', 'certificate'], CERTIFICATE);
  const key = read(admin.tls.key, ['admin', 'tls', 'key'], KEY);
  if (certificate === undefined || key === undefined) return { authorities, issues };
  const wrong = pairProblem(certificate, key);
  if (wrong === undefined) return { authorities, adminTls: { certificate, key }, issues };
  const { tls } = admin;
  issues.push(
    error('LB_TLS_PAIR', ['admin', 'tls'], `Certificate and key cannot be used together: ${wrong}`, {
      found: `"${tls.certificate}" and "${tls.key}"`,
      expected: 'a certificate and its own private key',
    }),
  );
  return { authorities, issues };
}

type Outcome =
  | { readonly ok: true; readonly text: string }
  | { readonly ok: false; readonly message: string; readonly expected?: string };

function readPem(
  file: string,
  { holds, pem }: Kind,
  readFile: ((path: string) => string) | undefined,
): Outcome {
  if (readFile === undefined) {
    return { ok: false, message: 'Files can only be named in a configuration file' };
  }
  try {
    const text = readFile(file);
    if (pem.test(text)) return { ok: true, text };
    return { ok: false, message: `File "${file}" holds no ${holds}`, expected: `a PEM file with a ${holds}` };
  } catch (thrown) {
    const message = `File "${file}" cannot be read: ${errorMessage(thrown)}`;
    return { ok: false, message, expected: 'a PEM file that can be read' };
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
