import { z } from 'zod';
import { cidrField, durationField, listenAddressField, nameField } from './fields.js';

/** Idle times by protocol, each optional. */
export function idleTimeoutSchema() {
  return z.strictObject({
    tcp: durationField(1000, 86_400_000)
      .describe('Idle time after which a TCP flow ends, 1s to 24h. Default 4m, as Azure')
      .exactOptional(),
    udp: durationField(1000, 86_400_000)
      .describe('Idle time after which a UDP flow ends, 1s to 24h. Default 30s')
      .exactOptional(),
  });
}

export const frontendSchema = z
  .strictObject({
    name: nameField().describe('Name of the frontend, unique among frontends'),
    address: listenAddressField().describe(
      'Address where flows arrive, IPv4 or IPv6. "0.0.0.0" and "::" stand for all addresses of the machine',
    ),
    idleTimeout: idleTimeoutSchema()
      .describe("Idle times of all rules on this frontend. They beat the rule's own, as on Azure")
      .exactOptional(),
    proxyProtocol: z
      .strictObject({
        accept: z
          .enum(['v1', 'v2', 'any'])
          .describe('Version of the PROXY protocol header that trusted sources must send'),
        trustedSources: z
          .array(cidrField())
          .min(1, { error: 'at least one address block' })
          .describe('Address blocks that must send a header; everybody else is served as they are'),
        headerTimeout: durationField(100, 60_000)
          .describe('How long a header may take to arrive, 100ms to 1m')
          .prefault('3s'),
      })
      .describe(
        'PROXY protocol on incoming TCP flows. Off by default. The hash and the flow log then use the addresses in the header',
      )
      .exactOptional(),
    allow: z
      .array(cidrField())
      .describe('Address blocks of clients that are served; empty: everybody')
      .prefault([]),
    deny: z
      .array(cidrField())
      .describe('Address blocks of clients that are not served; wins over allow')
      .prefault([]),
  })
  .describe('A named address where flows arrive');

export type FrontendInput = z.output<typeof frontendSchema>;
