import type { PlanOutcome, PlanReport, ReloadOutcome } from '../api/views.js';
import type { Finding } from '../config/findings.js';
import type { ParseResult } from '../config/load.js';
import type { Configuration } from '../model/configuration.js';
import { BalancerError } from '../model/errors.js';
import type { ControlEvent } from '../model/events.js';
import { allFlows, type DataPlane } from '../planes/contract.js';
import type { Clock } from '../runtime/clock.js';
import type { Picker } from '../selection/picker.js';
import { probeQuestions } from '../whatif/diff.js';
import { planChange } from '../whatif/plan.js';
import type { Balancer } from './balancer.js';
import type { Drains } from './drains.js';

export interface ReloadDeps {
  readonly clock: Clock;
  readonly balancer: Balancer;
  readonly plane: Pick<DataPlane, 'flows'>;
  readonly drains: Drains;
  readonly picker: Picker;
  /** Reads a configuration, and what it names, against this machine. Never rejects. */
  readonly parse: (text: string) => Promise<ParseResult>;
  readonly onEvent: (event: ControlEvent) => void;
}

export interface ReloadOptions {
  /** Who asked: `admin API`, `SIGHUP`, `file watch`. */
  readonly cause: string;
  /** 0 to 1: more of the hash space may not change hands. @default no limit */
  readonly maxMoved?: number;
}

/** Why a configuration cannot be used, with everything that is wrong with it. */
export class ConfigurationRefused extends BalancerError {
  readonly findings: readonly Finding[];

  constructor(findings: readonly Finding[]) {
    const errors = findings.filter(({ severity }) => severity === 'error');
    super(`The configuration cannot be used: ${errors[0]?.message ?? 'it is not valid'}`, {
      code: 'LB_CONFIG_INVALID',
      source: 'config',
    });
    this.findings = findings;
  }
}

/** Plans new configurations and takes them over, one at a time, each whole or not at all. */
export class Reloader {
  readonly #deps: ReloadDeps;
  #busy = false;

  constructor(deps: ReloadDeps) {
    this.#deps = deps;
  }

  /** What a reload would do. Changes nothing. Rejects with `LB_CONFIG_INVALID` or `LB_CONFLICT`. */
  async plan(text: string): Promise<PlanOutcome> {
    const parsed = await this.#deps.parse(text);
    if (!parsed.ok) throw new ConfigurationRefused(parsed.findings);
    return { findings: parsed.findings, report: await this.#plan(parsed.configuration) };
  }

  /**
   * Rejects with `LB_CONFIG_INVALID`, `LB_RESTART_NEEDED`, `LB_GATE_EXCEEDED`, `LB_CONFLICT` (another is under way) or
   * `LB_APPLY_FAILED`: the previous configuration then stays active. Every outcome is an event.
   */
  async reload(text: string, options: ReloadOptions): Promise<ReloadOutcome> {
    const { cause } = options;
    if (this.#busy) {
      throw new BalancerError('Cannot reload: another reload is under way', {
        code: 'LB_CONFLICT',
        source: 'usage',
      });
    }
    this.#busy = true;
    try {
      const outcome = await this.#reload(text, options);
      this.#deps.onEvent({ type: 'reloaded', cause, report: outcome.report });
      return outcome;
    } catch (error) {
      this.#deps.onEvent({ type: 'reload-failed', cause, error });
      throw error;
    } finally {
      this.#busy = false;
    }
  }

  async #reload(text: string, { maxMoved }: ReloadOptions): Promise<ReloadOutcome> {
    const { balancer, clock, drains, parse } = this.#deps;
    const startedAtMs = clock.monotonicMs();
    const parsed = await parse(text);
    if (!parsed.ok) throw new ConfigurationRefused(parsed.findings);
    const { configuration, findings } = parsed;
    const plan = await this.#plan(configuration);
    assertReloadable(plan, maxMoved);
    const asked = probeQuestions(balancer.configuration);
    const report = await balancer.reconfigure(configuration);
    const ids = backendIds(configuration);
    const overrides = balancer.overrides.retain(ids);
    drains.retain(ids);
    const lostFlows = plan.flows.reset + plan.flows.drop;
    const asking = probeQuestions(configuration);
    const kept = [...asked].filter((question) => asking.has(question)).length;
    return {
      findings,
      report: {
        revision: report.revision,
        digest: configuration.digest,
        plan,
        kept: {
          flows: plan.flows.stay + plan.flows.move,
          probeTargets: kept,
          adminStates: [...balancer.overrides.record().values()].filter(
            ({ adminState }) => adminState !== undefined,
          ).length,
          drains: drains.size,
          listeners: plan.listeners.kept,
        },
        lost: {
          flows: lostFlows,
          probeTargets: asked.size - kept,
          overrides,
          listeners: plan.listeners.closed,
        },
        durationMs: clock.monotonicMs() - startedAtMs,
      },
    };
  }

  #plan(configuration: Configuration): Promise<PlanReport> {
    const { balancer, plane, picker } = this.#deps;
    const { state } = balancer;
    if (state === undefined) {
      throw new BalancerError('Cannot plan: the balancer has not started yet', {
        code: 'LB_CONFLICT',
        source: 'usage',
      });
    }
    return planChange({
      before: state,
      after: balancer.preview(configuration),
      flows: allFlows(plane),
      picker,
    });
  }
}

function assertReloadable(plan: PlanReport, maxMoved: number | undefined): void {
  if (plan.restartNeeded.length > 0) {
    throw new BalancerError(
      `Cannot reload: ${plan.restartNeeded.map((key) => `"${key}"`).join(', ')} changed, which takes a new process`,
      { code: 'LB_RESTART_NEEDED', source: 'usage' },
    );
  }
  if (maxMoved !== undefined && plan.movedShare > maxMoved) {
    const percent = (share: number): string => `${(share * 100).toFixed(2)} %`;
    throw new BalancerError(
      `Cannot reload: ${percent(plan.movedShare)} of a rule's hash space would change hands, must be at most ${percent(maxMoved)}`,
      { code: 'LB_GATE_EXCEEDED', source: 'usage' },
    );
  }
}

function backendIds({ backendPools }: Configuration): ReadonlySet<string> {
  return new Set(backendPools.flatMap(({ backends }) => backends.map(({ id }) => id)));
}
