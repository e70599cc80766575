import { formatDuration } from '../model/duration.js';
import type { BoundRule } from './bind-rules.js';
import { isFloating } from './check-kernel.js';
import { kernelAddressIssues } from './check-kernel-addresses.js';
import { cannot, noEffect } from './check-kernel-limits.js';
import type { Draft } from './draft.js';
import { error, note, type Issue } from './finding.js';
import { flowPolicyOf } from './flow-policy.js';
import { idleTimeoutOf } from './idle-timeout.js';
import type { KernelInput } from './schema-kernel.js';

/** How long stateful firewalls commonly remember an idle TCP flow: PAN-OS and FortiOS by default. */
const APPLIANCE_IDLE_MS = 3_600_000;

/** Rules and what they name that the kernel data plane, or its mode, cannot serve as they are written. */
export function kernelRuleIssues(draft: Draft, rules: readonly BoundRule[]): readonly Issue[] {
  if (draft.plane.kind === 'userspace') return [];
  const { options } = draft.plane;
  return [
    ...kernelAddressIssues(draft, rules),
    ...idleSeconds(draft),
    ...rules.flatMap((rule) => [...streamIssues(rule), ...socketNotes(draft, rule)]),
    ...(options === undefined
      ? []
      : [
          ...rules.flatMap((rule) => [
            ...floatingIssues(options, rule),
            ...portIssues(options, rule),
            ...answerIssues(options, rule),
            ...symmetryNotes(options, rule),
            ...applianceNotes(options, rule),
          ]),
        ]),
  ];
}

/** Conntrack and the timeouts of sets count in seconds. */
function idleSeconds({ frontends, rules }: Draft): Issue[] {
  return [...frontends, ...rules].flatMap(({ path, value: { idleTimeout } }) =>
    (['tcp', 'udp'] as const).flatMap((protocol) => {
      const ms = idleTimeout?.[protocol];
      if (ms === undefined || ms % 1000 === 0) return [];
      const found = formatDuration(ms);
      return [
        error('LB_VALUE', [...path, 'idleTimeout', protocol], `Expected whole seconds, found ${found}`, {
          found: `"${found}"`,
          expected: 'whole seconds',
          reason: 'The kernel counts idle times in seconds',
        }),
      ];
    }),
  );
}

/** What is about single datagrams or about what is in a stream. */
function streamIssues({ path, input }: BoundRule): Issue[] {
  const issues: Issue[] = [];
  if (input.udp?.perPacket === true) {
    issues.push(
      cannot(
        [...path, 'udp', 'perPacket'],
        'The kernel data plane balances flows, not single datagrams',
        'no "perPacket"',
      ),
    );
  }
  if (input.udp?.expectedResponses !== undefined) {
    issues.push(
      cannot(
        [...path, 'udp', 'expectedResponses'],
        'The kernel data plane cannot end a flow by the number of its answers',
        'no "expectedResponses", and a short idleTimeout',
      ),
    );
  }
  return issues;
}

function socketNotes({ given }: Draft, { path, input }: BoundRule): Issue[] {
  const noSockets = 'No socket of this process is on the way';
  return [
    ...(['noDelay', 'keepAlive'] as const)
      .filter((key) => given([...path, 'tcp', key]))
      .map((key) => noEffect([...path, 'tcp', key], noSockets)),
    ...(input.tcpReset === false
      ? [
          noEffect(
            [...path, 'tcpReset'],
            'No FIN can be sent for others: an idle flow is forgotten without a word',
          ),
        ]
      : []),
  ];
}

function floatingIssues(options: KernelInput, { path, input, pool }: BoundRule): Issue[] {
  const at = [...path, 'floatingIp'];
  if (options.mode === 'next-hop') {
    if (!input.floatingIp) return [];
    return [noEffect(at, 'With mode next-hop destinations are never changed')];
  }
  if (input.floatingIp !== isFloating(options)) {
    return [
      error('LB_KERNEL_MODE', at, `floatingIp ${input.floatingIp} does not go with mode ${options.mode}`, {
        found: String(input.floatingIp),
        expected: input.floatingIp
          ? 'false, or mode "floating-l2" or "floating-routed"'
          : 'true, or mode "nat"',
        reason: input.floatingIp
          ? 'With mode nat packets are addressed to the backend'
          : "With a floating mode packets keep the frontend's address",
      }),
    ];
  }
  if (!input.floatingIp) return [];
  const message = `Each backend of pool "${pool.value.name}" needs the address of frontend "${input.frontend}" on a loopback interface`;
  const reason = 'Packets reach it with that address; "haports doctor" tests it and prints the commands';
  return [note('V18', at, message, { reason })];
}

function portIssues(options: KernelInput, { path, input, portOffset }: BoundRule): Issue[] {
  if (options.mode === 'nat' || portOffset === 0) return [];
  return [
    error('LB_KERNEL_MODE', [...path, 'backendPort'], `With mode ${options.mode} the port cannot change`, {
      found: String(input.backendPort),
      expected: '0 (the same port), or mode "nat"',
      reason: 'Packets reach the backend as they are',
    }),
  ];
}

function answerIssues(options: KernelInput, { path, input, protocols, haPorts }: BoundRule): Issue[] {
  if (!protocols.includes('udp')) return [];
  const at = [...path, 'udp', 'answersFrom'];
  const asked = input.udp?.answersFrom;
  if (options.mode !== 'nat') {
    if (asked === undefined) return [];
    return [noEffect(at, `With mode ${options.mode} answers are never held against the requests`)];
  }
  if (asked === 'address') {
    return [
      cannot(
        at,
        'The kernel data plane takes answers for those of a flow only from the port that was asked',
        '"endpoint"',
        'Conntrack knows a flow by both its ports',
      ),
    ];
  }
  if (asked !== undefined || !haPorts || input.distribution !== 'source-ip') return [];
  const message = 'Backends may answer only from the port they were asked on';
  const reason =
    'Conntrack knows a flow by both its ports; the userspace data plane takes any port by default here';
  return [note('LB_KERNEL_ANSWERS', [...path, 'distribution'], message, { reason })];
}

function symmetryNotes({ mode }: KernelInput, { path, input }: BoundRule): Issue[] {
  if (!input.symmetric || mode === 'next-hop') return [];
  const reason =
    mode === 'nat'
      ? 'Conntrack keeps both directions of a flow on one backend, however it is hashed'
      : 'Answers go from the backend to the client and do not pass through here';
  return [noEffect([...path, 'symmetric'], reason)];
}

/** Appliances remember flows, and one that did not see the beginning of a flow drops the rest. */
function applianceNotes({ mode, flowState }: KernelInput, rule: BoundRule): Issue[] {
  if (mode !== 'next-hop' || !rule.protocols.includes('tcp')) return [];
  const issues: Issue[] = [];
  if (flowPolicyOf(rule)['probe-down'].tcp === 'persist') {
    issues.push(
      note(
        'LB_KERNEL_APPLIANCE',
        [...rule.path, 'flowPolicy'],
        'TCP flows stay on an appliance that is down',
        {
          expected: '"firewall", which resets them so that clients connect anew',
          reason: 'No other stateful appliance would take them over',
        },
      ),
    );
  }
  const idle = idleTimeoutOf(rule, 'tcp');
  if (flowState === 'pinned' && idle.value < APPLIANCE_IDLE_MS) {
    const found = formatDuration(idle.value);
    const path = idle.origin === 'frontend' ? rule.frontend.path : rule.path;
    issues.push(
      note(
        'LB_KERNEL_IDLE',
        [...path, 'idleTimeout', 'tcp'],
        `A TCP flow is forgotten after ${found} of silence`,
        {
          found,
          expected: `at least as long as the appliances remember it, often ${formatDuration(APPLIANCE_IDLE_MS)}`,
          reason: 'Its next packet is refused then, though its appliance may still know the connection',
        },
      ),
    );
  }
  return issues;
}
