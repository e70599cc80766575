import { readJsonText } from '../config/json-text.js';
import { parseIpAddress, isLoopback } from '../model/address.js';
import { errorMessage } from '../model/errors.js';
import type { CliDeps } from './cli-deps.js';
import { usageError } from './option-parsers.js';

/** Where a running process is asked. */
export type AdminTarget =
  | { readonly kind: 'socket'; readonly path: string }
  | {
      readonly kind: 'http';
      readonly url: URL;
      readonly token?: string;
      /** PEM text; absent: the certificates that Node trusts. */
      readonly ca?: string;
    };

/** The options that say where, as every live command has them. */
export interface ConnectionOptions {
  /** Configuration file whose `admin.socket` is taken where nothing else says which. */
  readonly config: string;
  readonly socket?: string;
  readonly http?: string;
  readonly tokenFile?: string;
  readonly ca?: string;
}

/** For people. */
export function describeTarget(target: AdminTarget): string {
  return target.kind === 'socket' ? target.path : target.url.origin;
}

/**
 * `--http`, else `--socket`, else `HAPORTS_SOCKET`, else `admin.socket` of the configuration file, relative to the
 * current directory as the server takes it. Throws `LB_USAGE` where none of them says anything.
 */
export async function adminTarget(
  deps: Pick<CliDeps, 'env' | 'readText'>,
  options: ConnectionOptions,
): Promise<AdminTarget> {
  if (options.http !== undefined) return httpTarget(deps, options.http, options);
  const named = options.socket ?? deps.env['HAPORTS_SOCKET'];
  if (named !== undefined && named !== '') return { kind: 'socket', path: named };
  const configured = await configuredSocket(deps, options.config);
  if (configured !== undefined) return { kind: 'socket', path: configured };
  throw usageError(
    `Cannot tell which haports is meant: configuration file "${options.config}" has no "admin": ` +
      '{ "socket": "./haports.sock" }; name the file by -c, or the socket by --socket or HAPORTS_SOCKET',
  );
}

/**
 * `admin.socket` of a configuration file, whatever else is wrong with the file: it may be half edited while the
 * process it was started from runs on. Throws `LB_USAGE` where the file cannot be read.
 */
export async function configuredSocket(
  deps: Pick<CliDeps, 'readText'>,
  path: string,
): Promise<string | undefined> {
  let text: string;
  try {
    text = await deps.readText(path);
  } catch (error) {
    throw usageError(
      `Cannot tell which haports is meant: configuration file "${path}" cannot be read: ${errorMessage(error)}; ` +
        'name the file by -c, or the socket by --socket or HAPORTS_SOCKET',
    );
  }
  const json = readJsonText(text);
  const socket = json.ok ? member(member(json.value, 'admin'), 'socket') : undefined;
  return typeof socket === 'string' && socket !== '' ? socket : undefined;
}

async function httpTarget(
  deps: Pick<CliDeps, 'readText'>,
  text: string,
  options: ConnectionOptions,
): Promise<AdminTarget> {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    throw usageError(`Cannot use "${text}": it must be an address such as http://127.0.0.1:9901`);
  }
  const [token, ca] = await Promise.all([fileText(deps, options.tokenFile), fileText(deps, options.ca)]);
  if (token !== undefined && url.protocol === 'http:' && !isOnThisMachine(url.hostname)) {
    throw usageError(`Cannot use "${text}": a token may leave this machine only by https`);
  }
  return {
    kind: 'http',
    url,
    ...(token === undefined ? {} : { token: token.trim() }),
    ...(ca === undefined ? {} : { ca }),
  };
}

async function fileText(
  deps: Pick<CliDeps, 'readText'>,
  path: string | undefined,
): Promise<string | undefined> {
  if (path === undefined) return undefined;
  try {
    return await deps.readText(path);
  } catch (error) {
    throw usageError(`File "${path}" cannot be read: ${errorMessage(error)}`);
  }
}

function isOnThisMachine(hostname: string): boolean {
  const address = parseIpAddress(hostname.replace(/^\[(.*)\]$/, '$1'));
  return hostname === 'localhost' || (address !== undefined && isLoopback(address));
}

function member(value: unknown, key: string): unknown {
  if (typeof value !== 'object' || value === null) return undefined;
  return (value as Readonly<Record<string, unknown>>)[key];
}
