import { request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { urlToHttpOptions } from 'node:url';
import { createApiClient, type ApiClient, type ApiRequest } from '../api/client.js';
import { REFUSALS, ROUTES, type OperationName, type RefusalCode } from '../api/contract.js';
import type { FindingView } from '../api/views.js';
import { readJsonText } from '../config/text.js';
import { isLoopback, parseIpAddress } from '../model/address.js';
import { BalancerError, errorCode, errorMessage } from '../model/errors.js';
import { VERSION } from '../model/version.js';
import { readNamedFile, usageError, type CliDeps } from './deps.js';

/** A read that takes longer than this has met a process that hangs. */
const READ_TIMEOUT_MS = 15_000;

/** Taking over a configuration of all ports may take a while. */
const WRITE_TIMEOUT_MS = 120_000;

/**
 * The admin API of a running process. All methods reject with an AdminProblem where it refuses, and with
 * `LB_NOT_RUNNING` where nothing answers.
 */
export interface AdminClient extends ApiClient {
  readonly target: AdminTarget;
}

export function adminClient(target: AdminTarget): AdminClient {
  const send = async (request: ApiRequest): Promise<unknown> => {
    const timeoutMs = request.method === 'GET' ? READ_TIMEOUT_MS : WRITE_TIMEOUT_MS;
    const response = await sendRequest(target, { ...request, timeoutMs });
    const text = await readBody(target, response);
    const status = response.statusCode ?? 0;
    if (status < 200 || status > 299) throw problemOf(status, text);
    if (text === '') return undefined;
    try {
      return JSON.parse(text) as unknown;
    } catch (cause) {
      throw new BalancerError(`What answers at "${target.place}" is not the admin API of haports`, {
        code: 'LB_NOT_RUNNING',
        source: 'system',
        cause,
      });
    }
  };
  return { ...createApiClient<OperationName>(ROUTES, send), target };
}

/** Where a running process is asked. */
export interface AdminTarget {
  /** For people: a path, or scheme, host and port. */
  readonly place: string;
  /** How to connect: to a Unix socket, or by HTTP or HTTPS. */
  readonly options: Pick<RequestOptions, 'socketPath' | 'protocol' | 'hostname' | 'port'> & {
    readonly ca?: string;
  };
  readonly token?: string;
}

/** A Unix socket. */
export function socketTarget(path: string): AdminTarget {
  return { place: path, options: { socketPath: path } };
}

/** The options that say where, as every live command has them. */
export interface ConnectionOptions {
  /** Configuration file whose `admin.socket` is taken where nothing else says which. */
  readonly config: string;
  readonly socket?: string;
  readonly http?: string;
  readonly tokenFile?: string;
  readonly ca?: string;
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
  if (named !== undefined && named !== '') return socketTarget(named);
  const configured = await configuredSocket(deps, options.config);
  if (configured !== undefined) return socketTarget(configured);
  throw usageError(
    `Cannot tell which haports is meant: configuration file "${options.config}" has no "admin": ` +
      `{ "socket": "./haports.sock" }; ${HOW_TO_NAME_IT}`,
  );
}

const HOW_TO_NAME_IT = 'name the file by -c, or the socket by --socket or HAPORTS_SOCKET';

/** As much of a configuration as matters here. */
type MaybeSocket = { readonly admin?: { readonly socket?: unknown } | null } | null;

/**
 * `admin.socket` of a configuration file, whatever else is wrong with the file: it may be half edited while the
 * process it was started from runs on. Throws `LB_USAGE` where the file cannot be read.
 */
export async function configuredSocket(
  deps: Pick<CliDeps, 'readText'>,
  path: string,
): Promise<string | undefined> {
  const what = 'Cannot tell which haports is meant: configuration file';
  const json = readJsonText(await readNamedFile(deps, path, what, `; ${HOW_TO_NAME_IT}`));
  const socket = json.ok ? (json.value as MaybeSocket)?.admin?.socket : undefined;
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
  const [token, ca] = await Promise.all(
    [options.tokenFile, options.ca].map(async (path) =>
      path === undefined ? path : await readNamedFile(deps, path),
    ),
  );
  if (token !== undefined && url.protocol === 'http:' && !isOnThisMachine(url.hostname)) {
    throw usageError(`Cannot use "${text}": a token may leave this machine only by https`);
  }
  return { place: url.origin, options: { ...urlToHttpOptions(url), ca }, token: token?.trim() };
}

function isOnThisMachine(hostname: string): boolean {
  const address = parseIpAddress(hostname.replace(/^\[(.*)\]$/, '$1'));
  return hostname === 'localhost' || (address !== undefined && isLoopback(address));
}

/** One request to the admin API, of the client or of the event stream. */
export interface AdminRequest extends ApiRequest {
  readonly headers?: Readonly<Record<string, string>>;
  /** Given up when nothing came for this long. */
  readonly timeoutMs: number;
}

/**
 * Sends a request and resolves with the head of the answer, whatever its status; the caller reads or destroys it.
 * Rejects with `LB_NOT_RUNNING` where no process answers and `LB_FORBIDDEN` where the socket is another user's.
 */
export function sendRequest(target: AdminTarget, asked: AdminRequest): Promise<IncomingMessage> {
  const { method, path, body, timeoutMs, signal } = asked;
  const { token } = target;
  const options: RequestOptions = {
    ...target.options,
    path,
    method,
    headers: {
      'user-agent': `haports/${VERSION}`,
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
      // A write without a body states its type too: what has none could have come from a form of any web page.
      ...(method !== 'GET' && { 'content-type': 'application/json' }),
      ...(body !== undefined && { 'content-length': Buffer.byteLength(body) }),
      ...asked.headers,
    },
    // A connection of its own for each request: one that was kept may be closed by the server at any time.
    agent: false,
    timeout: timeoutMs,
    signal,
  };
  return new Promise((resolve, reject) => {
    const failed = (error: unknown): void => reject(transportError(target, error));
    const request = (options.protocol === 'https:' ? httpsRequest : httpRequest)(options);
    request.once('response', (response) => {
      // Errors from here on reach the reader of the body.
      request.off('error', failed).on('error', () => undefined);
      resolve(response);
    });
    request.on('error', failed);
    request.once('timeout', () => request.destroy(new Error(`no answer in ${timeoutMs / 1000} s`)));
    request.end(body);
  });
}

/** The whole body. Rejects as sendRequest where the connection breaks. */
export async function readBody(target: AdminTarget, response: IncomingMessage): Promise<string> {
  response.setEncoding('utf8');
  let text = '';
  try {
    for await (const chunk of response) text += String(chunk);
  } catch (error) {
    throw transportError(target, error);
  }
  return text;
}

/** What a failed connection means to the user of a command. */
function transportError(target: AdminTarget, error: unknown): BalancerError {
  if (error instanceof BalancerError) return error;
  const code = errorCode(error);
  const place = `"${target.place}"`;
  const options = { source: 'system', cause: error } as const;
  if (code === 'EACCES' || code === 'EPERM') {
    return new BalancerError(
      `Cannot open ${place} (${code}): the admin socket is for the user that haports runs as, and root`,
      { ...options, code: 'LB_FORBIDDEN' },
    );
  }
  const isAbsent = code === 'ENOENT' || code === 'ECONNREFUSED' || code === 'ENOTSOCK';
  const advice =
    target.options.socketPath !== undefined
      ? 'is haports running there, with "admin": { "socket": ... } in its configuration? (--socket and HAPORTS_SOCKET name another)'
      : 'is haports running there, with "admin": { "http": ... } in its configuration?';
  return new BalancerError(
    isAbsent
      ? `No haports answers at ${place} (${code}): ${advice}`
      : `No answer from haports at ${place}: ${errorMessage(error)}`,
    { ...options, code: 'LB_NOT_RUNNING' },
  );
}

/** What the running process refused, in its own words and with its code. */
export class AdminProblem extends BalancerError {
  /** Of a configuration that cannot be used; else empty. */
  readonly findings: readonly FindingView[];

  constructor(message: string, code: RefusalCode, findings: readonly FindingView[]) {
    super(message, { code, source: REFUSALS[code].source });
    this.findings = findings;
  }
}

type Problem = Readonly<Partial<Record<'code' | 'detail' | 'title' | 'findings', unknown>>>;

/** An error answer (RFC 9457, application/problem+json) as an error. Takes anything that a server may send. */
export function problemOf(status: number, body: string): AdminProblem {
  const json = readJsonText(body);
  const { code, detail, title, findings } = (json.ok && (json.value as Problem | null)) || {};
  const words = [detail, title].find((text): text is string => typeof text === 'string' && text !== '');
  return new AdminProblem(
    words ?? `The admin API answered with HTTP status ${status}`,
    typeof code === 'string' && Object.hasOwn(REFUSALS, code) ? (code as RefusalCode) : 'LB_INTERNAL',
    Array.isArray(findings) ? (findings as FindingView[]) : [],
  );
}

/** What every command that asks a running process takes. */
export interface LiveOptions extends ConnectionOptions {
  readonly json: boolean;
}

/** A client for the process that the options mean. Throws `LB_USAGE` where they name none. */
export async function clientFor(
  deps: Pick<CliDeps, 'env' | 'readText'>,
  options: ConnectionOptions,
): Promise<AdminClient> {
  return adminClient(await adminTarget(deps, options));
}
