import { LARGE, SMALL, startHttpBackend, type HttpResource } from '../backends/http-backend.js';
import type { Bench, Pass } from '../bench.js';
import { runTool } from '../load/load-tool.js';
import type { HttpCheckAnswer } from '../load/http-check-main.js';
import { checkWrk, runWrk, type WrkResult } from '../load/wrk.js';
import { costOf, type Cost } from '../measure.js';
import { bound, type SpecWithoutFrontend, type Target } from '../target.js';

/** Eight ports: the pairs of addresses have eight times as many client ports before they run out in TIME_WAIT. */
export const HTTP_PORTS: readonly number[] = [8080, 8081, 8082, 8083, 8084, 8085, 8086, 8087];
const BACKENDS = 3;

/** How wrk loads a target. */
export interface HttpRun {
  readonly connections: number;
  readonly seconds: number;
  /** A new connection for each request, over all ports. */
  readonly close: boolean;
  /** One mebibyte an answer instead of some hundred bytes. */
  readonly large?: boolean;
}

/** HTTP backends of a pass, and load through a target to them, with the content checked. */
export class HttpLoad {
  readonly spec: SpecWithoutFrontend;
  readonly #bench: Bench;
  readonly #pass: Pass;

  private constructor(bench: Bench, pass: Pass, backends: readonly string[]) {
    this.#bench = bench;
    this.#pass = pass;
    this.spec = {
      tcpPorts: [[HTTP_PORTS[0]!, HTTP_PORTS.at(-1)!]],
      udpPorts: [],
      backends,
      distribution: 'per-flow',
    };
  }

  /** Over backends that serve already. */
  static over(bench: Bench, pass: Pass, backends: readonly string[]): HttpLoad {
    return new HttpLoad(bench, pass, backends);
  }

  static async start(bench: Bench, pass: Pass, count: number = BACKENDS): Promise<HttpLoad> {
    const backends = Array.from({ length: count }, (_, index) => bench.lab.backend(index + 1));
    const own = await startHttpBackend(bench.processes, {
      cores: pass.cores.load,
      folder: await bench.folder('http'),
      addresses: backends,
      ports: HTTP_PORTS,
    });
    await bound(own, bench.lab.backend(count), { tcp: HTTP_PORTS.length });
    return new HttpLoad(bench, pass, backends);
  }

  /** Bytes of one answer; rejects when its body is not the backend's. */
  async answerBytes(target: Target, resource: HttpResource, close: boolean): Promise<number> {
    const answer = await runTool<HttpCheckAnswer>(
      this.#bench.processes,
      this.#pass.cores.load,
      'http-check-main',
      { host: target.host, ports: HTTP_PORTS, close, ...resource },
      10_000,
    );
    return answer.answerBytes;
  }

  /** Checks the content, then loads the target without measuring it. */
  async warmUp(
    target: Target,
    options: { readonly connections: number; readonly close: boolean },
  ): Promise<void> {
    const seconds = this.#bench.warmUpSeconds(target.peer);
    if (seconds > 0) await this.run(target, { ...options, seconds });
    else await this.answerBytes(target, SMALL, options.close);
  }

  /** One wrk run, checked before and in sum; rejects when an answer was missing or had another length. */
  async run(target: Target, options: HttpRun): Promise<{ readonly result: WrkResult; readonly cost: Cost }> {
    const resource = options.large === true ? LARGE : SMALL;
    const answerBytes = await this.answerBytes(target, resource, options.close);
    const folder = await this.#bench.folder('wrk');
    const outcome = await costOf(target, this.#pass.cores, () =>
      runWrk(this.#bench.processes, {
        cores: this.#pass.cores.load,
        folder,
        host: target.host,
        ports: options.close ? HTTP_PORTS : HTTP_PORTS.slice(0, 1),
        path: resource.path,
        ...options,
      }),
    );
    checkWrk(outcome.result, answerBytes, options.connections);
    return outcome;
  }
}
