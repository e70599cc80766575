import { z } from 'zod';
import { parseDuration } from '../model/duration.js';
import type { FlowPolicyPreset } from '../model/flow-policy-presets.js';
import type { FlowAction } from '../model/rule.js';
import { integerField, nameField, parsed, portOrRangeField, portSetField } from './fields.js';
import { idleTimeoutSchema } from './schema-frontend.js';

type ActionByProtocol = Readonly<Partial<Record<'tcp' | 'udp', FlowAction>>>;

function actionSchema<const A extends readonly [FlowAction, ...FlowAction[]]>(actions: A) {
  const words = actions.map((word) => `"${word}"`).join(', ');
  const action = z.enum(actions, { error: `one of ${words}` });
  return z.union(
    [
      action.transform((both): ActionByProtocol => ({ tcp: both, udp: both })),
      z.strictObject({
        tcp: action.describe('For TCP flows').exactOptional(),
        udp: action.describe('For UDP flows').exactOptional(),
      }),
    ],
    { error: `one of ${words}, or {"tcp": ..., "udp": ...}` },
  );
}

/** A preset, and what differs from it. */
export interface FlowPolicyInput {
  readonly preset: FlowPolicyPreset;
  readonly probeDown?: ActionByProtocol;
  readonly adminDown?: ActionByProtocol;
  readonly removed?: ActionByProtocol;
  readonly drainDeadline?: ActionByProtocol;
  readonly idle?: ActionByProtocol;
}

const preset = z.enum(['azure', 'aws-gwlb', 'gcp', 'firewall']);
const ACTIONS = ['persist', 'rebalance', 'reset', 'drop'] as const;

const flowPolicySchema = z
  .union(
    [
      preset.transform((name): FlowPolicyInput => ({ preset: name })),
      z.strictObject({
        preset: preset.describe('What holds where nothing else is said').default('azure'),
        probeDown: actionSchema(ACTIONS).describe('The probe took the backend down').exactOptional(),
        adminDown: actionSchema(ACTIONS).describe('An operator switched the backend down').exactOptional(),
        removed: actionSchema(ACTIONS).describe('The backend left the configuration').exactOptional(),
        drainDeadline: actionSchema(ACTIONS).describe('A drain ran out of time').exactOptional(),
        idle: actionSchema(['reset', 'drop']).describe('The idle time ran out').exactOptional(),
      }),
    ],
    {
      error:
        'one of "azure", "aws-gwlb", "gcp", "firewall", or an object with some of preset and the triggers',
    },
  )
  .describe(
    'What happens to flows whose backend is lost. persist: they stay. rebalance: UDP moves, TCP is reset. reset: TCP ' +
      'gets RST on both ends, UDP starts afresh. drop: forgotten without a word',
  );

function keepAliveField() {
  return parsed((text): number | 'off' | undefined => {
    if (text === 'off') return text;
    const ms = parseDuration(text);
    return ms === undefined || ms < 1000 || ms > 86_400_000 ? undefined : ms;
  }, '"off", or a duration from 1s to 24h such as "30s"');
}

export const ruleSchema = z
  .strictObject({
    name: nameField().describe('Name of the rule, unique among rules'),
    frontend: nameField().describe('Name of the frontend where its flows arrive'),
    backendPool: nameField().describe('Name of the pool that serves them'),
    probe: nameField()
      .describe('Name of the probe that decides which backends are up. Without one all count as up')
      .exactOptional(),
    protocol: z
      .enum(['tcp', 'udp', 'all'])
      .describe('all is TCP and UDP. Needed unless haPorts is true')
      .exactOptional(),
    frontendPort: portOrRangeField()
      .describe('Port, or range of ports, where flows arrive; 0: every port. Needed unless haPorts is true')
      .exactOptional(),
    backendPort: integerField(0, 65535)
      .describe(
        'Port on the backend; for a range the first one of the target range. 0: the same as arrived at',
      )
      .default(0),
    listenPorts: portSetField()
      .describe('Limits the rule to these ports, such as "8000-8099" for an HA-ports rule. Default: no limit')
      .exactOptional(),
    haPorts: z
      .boolean()
      .describe('Short for protocol all, frontendPort 0, backendPort 0: every port, port kept')
      .default(false),
    floatingIp: z
      .boolean()
      .describe(
        "Address the backend by its floatingAddresses instead of its own address, as Azure's floating IP",
      )
      .default(false),
    distribution: z
      .enum(['five-tuple', 'source-ip-protocol', 'source-ip'])
      .describe('Which fields are hashed. Azure: Default, SourceIPProtocol, SourceIP')
      .meta({ default: 'five-tuple' })
      .exactOptional(),
    symmetric: z.boolean().describe('Both directions of a flow hash to the same backend').default(false),
    idleTimeout: idleTimeoutSchema()
      .describe('Idle times. An idleTimeout of the frontend beats them')
      .exactOptional(),
    tcpReset: z
      .boolean()
      .describe('RST to both ends when a TCP flow ends for idleness; false: FIN')
      .meta({ default: true })
      .exactOptional(),
    flowPolicy: flowPolicySchema.prefault('azure'),
    allDown: z
      .enum(['reset', 'drop', 'fail-open'])
      .describe(
        'What new flows meet when no backend is up. reset: refused. drop: no answer (TCP: accepted, never answered). ' +
          'fail-open: served by any backend that is not switched down',
      )
      .default('reset'),
    tcp: z
      .strictObject({
        noDelay: z.boolean().describe('TCP_NODELAY on both sockets').default(true),
        keepAlive: keepAliveField()
          .describe('Idle time before the first TCP keep-alive on both sockets, or "off"')
          .prefault('off'),
      })
      .describe('Socket options of TCP flows')
      .exactOptional(),
    udp: z
      .strictObject({
        perPacket: z
          .boolean()
          .describe('Balance each datagram by itself, for one-way protocols such as syslog. No replies')
          .default(false),
        expectedResponses: integerField(0, 1_000_000)
          .describe(
            'Datagrams a backend answers to one request; the flow ends with the last. 0: replies are dropped',
          )
          .exactOptional(),
        answersFrom: z
          .enum(['endpoint', 'address'])
          .describe(
            'Where a backend may answer from. endpoint: the port it was asked on (address and port-dependent filtering, ' +
              'RFC 4787 section 5). address: any of its ports, for TFTP and the like (address-dependent filtering). ' +
              'Default: address for an HA-ports rule with distribution source-ip that carries replies and does not ' +
              'count them, else endpoint',
          )
          .exactOptional(),
      })
      .describe('Options of UDP flows')
      .exactOptional(),
  })
  .describe('Frontend, protocol and ports that are balanced over a pool');

export type RuleInput = z.output<typeof ruleSchema>;
