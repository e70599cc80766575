import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { AdminServer, type AdminServerOptions } from '../../../src/admin/server.js';
import type { Operations } from '../../../src/api/contract.js';
import { ipAddress } from '../../../src/model/address.js';
import type { AdminOptions } from '../../../src/model/configuration.js';
import type { ControlEvent } from '../../../src/model/events.js';
import { systemClock, type Clock } from '../../../src/runtime/clock.js';
import { systemSocketFiles } from '../../../src/runtime/files.js';
import type { Answer } from '../../support/admin-api.js';
import { FakeOperations } from './fake-operations.js';

export const LOOPBACK = { address: ipAddress('127.0.0.1'), port: 0 };

/** A folder that is gone when the test is. */
export function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'haports-admin-'));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

export interface AdminLab {
  readonly fake: FakeOperations;
  readonly server: AdminServer;
  /** Of http. */
  readonly port: number;
  readonly socketPath: string;
}

export interface AdminLabOptions extends Partial<Omit<AdminServerOptions, 'listen'>> {
  readonly listen?: Partial<AdminOptions>;
  readonly answers?: Partial<Operations>;
  readonly clock?: Clock;
  readonly onEvent?: (event: ControlEvent) => void;
}

/** A server on a socket and on a loopback port, stopped with the test. */
export async function adminLab(t: TestContext, options: AdminLabOptions = {}): Promise<AdminLab> {
  const { listen, answers, clock = systemClock, onEvent = () => undefined, ...more } = options;
  const fake = new FakeOperations();
  const socketPath = join(folder(t), 'admin.sock');
  const server = new AdminServer(
    { operations: fake.with(answers), events: fake.events, clock, onEvent, files: systemSocketFiles },
    { listen: { socket: socketPath, http: LOOPBACK, ...listen }, ...more },
  );
  t.after(() => server.stop());
  const { httpPort = 0 } = await server.start();
  return { fake, server, port: httpPort, socketPath };
}

/** Code and status of a problem document. */
export function problemOf({ status, headers, json }: Answer): readonly unknown[] {
  if (headers['content-type'] !== 'application/problem+json') return ['no problem', status];
  const { code, status: told } = json as { readonly code?: string; readonly status: number };
  return told === status ? [status, code] : ['statuses differ', status, told];
}

/** Sends bytes as they are and reads until the server closes. */
export async function askRaw(port: number, bytes: string): Promise<string> {
  const socket = connect(port, '127.0.0.1');
  let answer = '';
  socket.on('data', (chunk: Buffer) => (answer += chunk.toString('latin1')));
  socket.on('error', () => undefined);
  socket.write(bytes);
  await new Promise((resolve) => socket.once('close', resolve));
  return answer;
}
