import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { OwnProcesses } from '../own-processes.js';

/** What wrk counted; `errors` are connects, reads, writes, time-outs and answers that are not 2xx or 3xx. */
export interface WrkResult {
  readonly requests: number;
  readonly bytes: number;
  readonly seconds: number;
  readonly errors: number;
}

const SUMMARY = `done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\nSUMMARY %.0f %.0f %.0f %.0f\\n', summary.requests, summary.bytes, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout))
end
`;

export interface WrkOptions {
  readonly cores: string;
  readonly folder: string;
  readonly host: string;
  /** One wrk for each port. */
  readonly ports: readonly number[];
  readonly path: string;
  /** Over all ports. */
  readonly connections: number;
  readonly seconds: number;
  /** A new connection for each request. */
  readonly close: boolean;
}

/** Runs one wrk a port, side by side, and adds up what they counted. */
export async function runWrk(processes: OwnProcesses, options: WrkOptions): Promise<WrkResult> {
  const script = join(options.folder, 'summary.lua');
  await writeFile(script, SUMMARY);
  const each = Math.max(1, Math.floor(options.connections / options.ports.length));
  const outputs = await Promise.all(
    options.ports.map((port) =>
      processes.run(
        { role: 'client', cores: options.cores },
        'wrk',
        [
          ...['wrk', '-t1', `-c${each}`, `-d${options.seconds}s`, '--timeout', '5s', '-s', script],
          ...(options.close ? ['-H', 'Connection: close'] : []),
          `http://${options.host}:${port}${options.path}`,
        ],
        (options.seconds + 15) * 1000,
      ),
    ),
  );
  const results = outputs.map(parseWrk);
  return {
    requests: results.reduce((sum, result) => sum + result.requests, 0),
    bytes: results.reduce((sum, result) => sum + result.bytes, 0),
    seconds: Math.max(...results.map((result) => result.seconds)),
    errors: results.reduce((sum, result) => sum + result.errors, 0),
  };
}

export function parseWrk(output: string): WrkResult {
  const match = /^SUMMARY (\d+) (\d+) (\d+) (\d+)$/m.exec(output);
  if (match === null) throw new Error(`wrk gave no summary: ${output.trim().split('\n').at(-1) ?? ''}`);
  const [requests = 0, bytes = 0, micros = 0, errors = 0] = match.slice(1).map(Number);
  return { requests, bytes, seconds: micros / 1e6, errors };
}

/**
 * Whether wrk's bytes are those of whole, right answers: `answerBytes` each, the headers with them, and less than one
 * more on each connection. Throws when they are not, or when there was any error.
 */
export function checkWrk(result: WrkResult, answerBytes: number, connections: number): void {
  if (result.errors > 0) throw new Error(`${result.errors} of ${result.requests} requests failed`);
  if (result.requests === 0) throw new Error('no request was answered');
  const surplus = result.bytes - result.requests * answerBytes;
  if (surplus < 0 || surplus > connections * answerBytes) {
    throw new Error(`${result.requests} answers had ${result.bytes} bytes, must be ${answerBytes} each`);
  }
}
