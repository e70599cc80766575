import { request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { AsJson } from '../api/configuration-json.js';
import type {
  BackendPoolView,
  BackendView,
  FlowList,
  FlowListQuery,
  FrontendView,
  ListedFlow,
  RuleView,
  SimulationReport,
  SimulationRequest,
  StatusView,
} from '../api/views.js';
import { readJsonText } from '../config/text.js';
import { isLoopback, parseIpAddress, type FiveTuple } from '../model/address.js';
import type { AdminState } from '../model/configuration.js';
import { BalancerError, errorCode, errorMessage, type ErrorCode, type ErrorSource } from '../model/errors.js';
import type { UpgradeOutcome } from '../model/events.js';
import type { DrainStatus } from '../model/forwarding.js';
import type { PlanOutcome, ReloadOutcome, ReportedFinding } from '../model/plan-report.js';
import { VERSION } from '../model/version.js';
import type { LiveExplanation } from '../status/explain.js';
import { usageError, type BackendRef, type CliDeps } from './deps.js';

/** A read that takes longer than this has met a process that hangs. */
const READ_TIMEOUT_MS = 15_000;

/** Taking over a configuration of all ports may take a while. */
const WRITE_TIMEOUT_MS = 120_000;

export type QueryValue = string | number | undefined;

/** What a drain is asked for over the API: durations are text, as in the configuration. */
export interface DrainWishes {
  readonly deadline: string;
  readonly then: 'reset' | 'leave';
  readonly spread: string;
  readonly force: boolean;
}

/**
 * The admin API of a running process, typed. All methods reject with an AdminProblem where it refuses, and with
 * `LB_NOT_RUNNING` where nobody answers. Answers are trusted to have the shape that the API documents.
 */
export class AdminClient {
  readonly #target: AdminTarget;

  constructor(target: AdminTarget) {
    this.#target = target;
  }

  get target(): AdminTarget {
    return this.#target;
  }

  async status(signal?: AbortSignal): Promise<StatusJson> {
    return (await this.#get('/v1/status', {}, signal)) as StatusJson;
  }

  async frontends(): Promise<readonly FrontendView[]> {
    return (await this.#get('/v1/frontends')) as readonly FrontendView[];
  }

  async rules(): Promise<readonly RuleView[]> {
    return (await this.#get('/v1/rules')) as readonly RuleView[];
  }

  async pools(signal?: AbortSignal): Promise<readonly PoolJson[]> {
    return (await this.#get('/v1/pools', {}, signal)) as readonly PoolJson[];
  }

  async pool(name: string): Promise<PoolJson> {
    return (await this.#get(`/v1/pools/${encodeURIComponent(name)}`)) as PoolJson;
  }

  async flows(query: Partial<FlowListQuery>, signal?: AbortSignal): Promise<FlowListJson> {
    return (await this.#get('/v1/flows', { ...query }, signal)) as FlowListJson;
  }

  async explain(query: {
    readonly protocol: string;
    readonly source: string;
    readonly destination: string;
  }): Promise<ExplanationJson> {
    return (await this.#get('/v1/explain', query)) as ExplanationJson;
  }

  async setAdminState(backend: BackendRef, adminState: AdminState | 'configured'): Promise<void> {
    await this.#write('PUT', `${pathOf(backend)}/admin-state`, JSON.stringify({ adminState }));
  }

  async setWeight(backend: BackendRef, weight: number | 'configured'): Promise<void> {
    await this.#write('PUT', `${pathOf(backend)}/weight`, JSON.stringify({ weight }));
  }

  async drain(backend: BackendRef, wishes: DrainWishes): Promise<DrainJson> {
    return (await this.#write('POST', `${pathOf(backend)}/drain`, JSON.stringify(wishes))) as DrainJson;
  }

  async drainStatus(backend: BackendRef, signal?: AbortSignal): Promise<DrainJson> {
    return (await this.#get(`${pathOf(backend)}/drain`, {}, signal)) as DrainJson;
  }

  async cancelDrain(backend: BackendRef): Promise<void> {
    await this.#write('DELETE', `${pathOf(backend)}/drain`);
  }

  async drains(): Promise<readonly DrainJson[]> {
    return (await this.#get('/v1/drains')) as readonly DrainJson[];
  }

  /** `text` is a whole configuration. */
  async plan(text: string): Promise<PlanOutcome> {
    return (await this.#write('POST', '/v1/plan', text)) as PlanOutcome;
  }

  /** `maxMoved`: 0 to 1. */
  async reload(text: string, options: { readonly maxMoved?: number } = {}): Promise<ReloadOutcome> {
    const query = queryOf({ maxMoved: options.maxMoved });
    return (await this.#write('POST', `/v1/reload${query}`, text)) as ReloadOutcome;
  }

  /** `deadline`: a duration with a unit. */
  async upgrade(options: { readonly deadline?: string } = {}): Promise<UpgradeOutcome> {
    return (await this.#write('POST', '/v1/upgrade', JSON.stringify(options))) as UpgradeOutcome;
  }

  async simulate(request: SimulationRequest): Promise<SimulationReport> {
    return (await this.#write('POST', '/v1/simulate', JSON.stringify(request))) as SimulationReport;
  }

  /** Sends JSON text as it is and gives the answer, for commands that look no closer at it. */
  async post(path: string, text: string): Promise<unknown> {
    return this.#write('POST', path, text);
  }

  async #get(
    path: string,
    query: Readonly<Record<string, QueryValue>> = {},
    signal?: AbortSignal,
  ): Promise<unknown> {
    return this.#exchange({
      method: 'GET',
      path: `${path}${queryOf(query)}`,
      timeoutMs: READ_TIMEOUT_MS,
      ...(signal === undefined ? {} : { signal }),
    });
  }

  async #write(method: 'PUT' | 'POST' | 'DELETE', path: string, body?: string): Promise<unknown> {
    // A write without a body states its type too: what has none could have come from a form of any web page.
    const text = body === undefined ? {} : { body };
    const headers = { 'content-type': 'application/json' };
    return this.#exchange({ method, path, timeoutMs: WRITE_TIMEOUT_MS, headers, ...text });
  }

  async #exchange(request: AdminRequest): Promise<unknown> {
    const response = await sendRequest(this.#target, request);
    const text = await readBody(this.#target, response);
    const status = response.statusCode ?? 0;
    if (status < 200 || status > 299) throw problemOf(status, text);
    if (text === '') return undefined;
    try {
      return JSON.parse(text) as unknown;
    } catch (error) {
      throw new BalancerError(
        `What answers at "${describeTarget(this.#target)}" is not the admin API of haports`,
        {
          code: 'LB_NOT_RUNNING',
          source: 'system',
          cause: error,
        },
      );
    }
  }
}

/** `?a=1&b=2`, or nothing; what is undefined is left out. */
export function queryOf(query: Readonly<Record<string, QueryValue>>): string {
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) if (value !== undefined) search.set(key, String(value));
  const text = search.toString();
  return text === '' ? '' : `?${text}`;
}

function pathOf({ pool, backend }: BackendRef): string {
  return `/v1/backends/${encodeURIComponent(pool)}/${encodeURIComponent(backend)}`;
}

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

/** One request to the admin API. */
export interface AdminRequest {
  readonly method: 'GET' | 'PUT' | 'POST' | 'DELETE';
  /** With the query, escaped. */
  readonly path: string;
  /** JSON text. */
  readonly body?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Given up when nothing came for this long. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/**
 * Sends a request and resolves with the head of the answer, whatever its status; the caller reads or destroys it.
 * Rejects with `LB_NOT_RUNNING` where nobody answers and `LB_FORBIDDEN` where the socket is somebody else's.
 */
export function sendRequest(target: AdminTarget, asked: AdminRequest): Promise<IncomingMessage> {
  const { method, body, timeoutMs } = asked;
  const headers: Record<string, string> = { 'user-agent': `haports/${VERSION}`, ...asked.headers };
  if (target.kind === 'http' && target.token !== undefined)
    headers['authorization'] = `Bearer ${target.token}`;
  if (body !== undefined) {
    headers['content-type'] = 'application/json';
    headers['content-length'] = String(Buffer.byteLength(body));
  }
  // A connection of its own for each request: one that was kept may be closed by the server at any time.
  const options: RequestOptions = { method, headers, agent: false, timeout: timeoutMs };
  if (asked.signal !== undefined) options.signal = asked.signal;
  return new Promise((resolve, reject) => {
    const failed = (error: unknown): void => reject(transportError(target, error));
    const request = open(target, asked.path, options);
    request.once('response', (response) => {
      // What goes wrong from here on is told by the body, to whom reads it.
      request.off('error', failed).on('error', () => undefined);
      resolve(response);
    });
    request.on('error', failed);
    request.once('timeout', () => request.destroy(new Error(`no answer in ${timeoutMs / 1000} s`)));
    request.end(body);
  });
}

function open(target: AdminTarget, path: string, options: RequestOptions): ReturnType<typeof httpRequest> {
  if (target.kind === 'socket') return httpRequest({ ...options, socketPath: target.path, path });
  const { url, ca } = target;
  const full = new URL(path, url);
  if (url.protocol === 'http:') return httpRequest(full, options);
  return httpsRequest(full, { ...options, ...(ca === undefined ? {} : { ca }) });
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

/** What a failed connection means to the one who typed the command. */
export function transportError(target: AdminTarget, error: unknown): BalancerError {
  if (error instanceof BalancerError) return error;
  const code = errorCode(error);
  const place = `"${describeTarget(target)}"`;
  const options = { source: 'system', cause: error } as const;
  if (code === 'EACCES' || code === 'EPERM') {
    return new BalancerError(
      `Cannot open ${place} (${code}): the admin socket is for the user that haports runs as, and root`,
      { ...options, code: 'LB_FORBIDDEN' },
    );
  }
  const isAbsent = code === 'ENOENT' || code === 'ECONNREFUSED' || code === 'ENOTSOCK';
  const advice =
    target.kind === 'socket'
      ? 'is haports running there, with "admin": { "socket": ... } in its configuration? (--socket and HAPORTS_SOCKET name another)'
      : 'is haports running there, with "admin": { "http": ... } in its configuration?';
  return new BalancerError(
    isAbsent
      ? `No haports answers at ${place} (${code}): ${advice}`
      : `No answer from haports at ${place}: ${errorMessage(error)}`,
    { ...options, code: 'LB_NOT_RUNNING' },
  );
}

/** Who is to blame for an answer's code, as the exit code has it: config and usage are the operator's to put right. */
const SOURCES: Readonly<Record<ErrorCode, ErrorSource>> = {
  LB_CONFIG_UNREADABLE: 'config',
  LB_CONFIG_SYNTAX: 'config',
  LB_CONFIG_INVALID: 'config',
  LB_USAGE: 'usage',
  LB_UNKNOWN_BACKEND: 'usage',
  LB_TOO_LARGE: 'usage',
  LB_LISTEN_FAILED: 'system',
  LB_WORKER_LOST: 'system',
  LB_INSTANCE_RUNNING: 'system',
  LB_APPLY_FAILED: 'system',
  LB_RESTART_NEEDED: 'system',
  LB_UPGRADE_FAILED: 'system',
  LB_GATE_EXCEEDED: 'system',
  LB_CONFLICT: 'system',
  LB_NOT_FOUND: 'system',
  LB_UNAUTHORIZED: 'system',
  LB_FORBIDDEN: 'system',
  LB_NOT_RUNNING: 'system',
  LB_KERNEL_DENIED: 'system',
  LB_KERNEL_TOOL_MISSING: 'system',
  LB_KERNEL_UNSUPPORTED: 'system',
  LB_KERNEL_FAILED: 'system',
  LB_INTERNAL: 'internal',
};

/** What the running process refused, with its own words and code. */
export class AdminProblem extends BalancerError {
  /** Of HTTP. */
  readonly status: number;
  /** Of a configuration that cannot be used; else empty. */
  readonly findings: readonly ReportedFinding[];

  constructor(
    message: string,
    options: {
      readonly code: ErrorCode;
      readonly status: number;
      readonly findings?: readonly ReportedFinding[];
    },
  ) {
    super(message, { code: options.code, source: SOURCES[options.code] });
    this.status = options.status;
    this.findings = options.findings ?? [];
  }
}

/** An error answer (RFC 9457, application/problem+json) as an error. Takes anything that a server may send. */
export function problemOf(status: number, body: string): AdminProblem {
  const problem = parsed(body);
  const code = errorCodeOf(problem['code']);
  const words = [problem['detail'], problem['title']].find(
    (text): text is string => typeof text === 'string' && text !== '',
  );
  const findings = Array.isArray(problem['findings']) ? (problem['findings'] as ReportedFinding[]) : [];
  return new AdminProblem(words ?? `The admin API answered with HTTP status ${status}`, {
    code: code ?? 'LB_INTERNAL',
    status,
    findings,
  });
}

function parsed(body: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(body);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

function errorCodeOf(code: unknown): ErrorCode | undefined {
  return Object.keys(SOURCES).find((one): one is ErrorCode => one === code);
}

/*
 * The views of model/operator-views.ts as they come over the admin API.
 */

export type TupleJson = AsJson<FiveTuple>;
export type FlowJson = AsJson<ListedFlow>;
export type FlowListJson = AsJson<FlowList>;
export type DrainJson = AsJson<DrainStatus>;
export type StatusJson = AsJson<StatusView>;
export type BackendJson = AsJson<BackendView>;
export type PoolJson = AsJson<BackendPoolView>;
export type ExplanationJson = LiveExplanation;

/** `192.0.2.7:40000`, `[2001:db8::7]:40000`. */
export function clientOf({ source, sourcePort }: TupleJson): string {
  return endpointText(source, sourcePort);
}

export function frontendOf({ destination, destinationPort }: TupleJson): string {
  return endpointText(destination, destinationPort);
}

function endpointText(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
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
  return new AdminClient(await adminTarget(deps, options));
}

/** One JSON value, set out for people to read too. */
export function printJson(deps: Pick<CliDeps, 'out'>, value: unknown): void {
  deps.out(`${JSON.stringify(value, undefined, 2)}\n`);
}

/** One JSON value on one line, for streams of them. */
export function printJsonLine(deps: Pick<CliDeps, 'out'>, value: unknown): void {
  deps.out(`${JSON.stringify(value)}\n`);
}

export function printLines(deps: Pick<CliDeps, 'out'>, lines: readonly string[]): void {
  deps.out(`${lines.join('\n')}\n`);
}
