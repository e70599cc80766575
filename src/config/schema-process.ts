import { z } from 'zod';
import {
  cidrField,
  durationField,
  endpointField,
  integerField,
  nameField,
  portSetField,
  textField,
  webhookField,
} from './fields.js';
import { kernelSchema } from './schema-kernel.js';

const anyPath = (expected: string) => z.string({ error: expected }).min(1, { error: expected });
const flows = () => integerField(1, 16_777_216);

export const dataPlaneSchema = z
  .strictObject({
    kind: z
      .enum(['userspace', 'kernel'])
      .describe(
        'What moves the bytes. userspace: this process, through sockets. kernel: nftables, and this process decides',
      )
      .default('userspace'),
    workers: integerField(0, 64)
      .describe(
        'Data processes beside the control process; 0: everything in one process. Several share TCP ports, and each UDP address and port belongs to one. The kernel data plane has none',
      )
      .default(1),
    instance: nameField()
      .describe(
        'What this process has in the kernel is named after it. Two on one machine need names of their own',
      )
      .default('haports'),
    capture: z
      .strictObject({
        mode: z
          .enum(['auto', 'dnat-map', 'tproxy'])
          .describe('How TCP is steered. auto: tproxy where transparent sockets are handed in, else dnat-map')
          .default('auto'),
        udp: z
          .enum(['redirect', 'bind'])
          .describe('redirect: one UDP socket a frontend. bind: one a port, not captured')
          .default('redirect'),
        excludedPorts: portSetField()
          .describe(
            'Ports that HA-ports rules leave alone on every frontend. A rule may name port 22 where this key is absent, and none of these where it is there',
          )
          .prefault('22'),
        fallback: z
          .enum(['none', 'bind'])
          .describe('Where capture is impossible: fail, or open a socket a port')
          .default('none'),
        port: integerField(1024, 65471)
          .describe(
            'TCP port of the socket that gets all ports; UDP sockets take as many from it as there are workers',
          )
          .default(61000),
        block: cidrField()
          .describe(
            'IPv4 block whose addresses stand for ports within this machine, /4 to /16: a /16 a frontend',
          )
          .prefault('240.0.0.0/4'),
      })
      .describe('Steer all ports of the frontends to a few sockets (nftables) instead of one socket a port')
      .exactOptional(),
    kernel: kernelSchema
      .describe('Options of the kernel data plane. Default, with kind kernel: those of its keys')
      .exactOptional(),
  })
  .describe('What moves the bytes');

export const limitsSchema = z
  .strictObject({
    tcpFlows: flows().describe('Established TCP flows of all data processes together').default(65536),
    udpFlows: flows().describe('UDP flows of all data processes together').default(65536),
    embryonicFlows: flows()
      .describe('TCP flows that have no backend connection yet, or wait under allDown drop')
      .default(16384),
    embryonicTimeout: durationField(100, 600_000)
      .describe('How long a TCP flow may stay without a backend connection, 100ms to 10m')
      .prefault('30s'),
    tcpFlowsPerSource: flows()
      .describe('TCP flows of one client address, in each data process. Default: no cap')
      .exactOptional(),
    udpFlowsPerSource: flows()
      .describe('UDP flows of one client address, in each data process. Default: no cap')
      .exactOptional(),
  })
  .describe('Caps. What is over them is refused, counted and told as an event');

export const loggingSchema = z
  .strictObject({
    level: z
      .enum(['trace', 'debug', 'info', 'warn', 'error'])
      .describe('Least severity logged')
      .default('info'),
    format: z
      .enum(['auto', 'json', 'pretty'])
      .describe('auto: pretty on a terminal where pino-pretty is installed, else JSON')
      .default('auto'),
  })
  .describe('The log of the process itself');

export const flowLogSchema = z
  .strictObject({
    file: anyPath('the path of a file').describe('File that flows are logged to, one JSON object a line'),
    sample: z
      .number({ error: 'a number from 0 to 1' })
      .min(0, { error: 'a number from 0 to 1' })
      .max(1, { error: 'a number from 0 to 1' })
      .describe('Share of flows logged. Configurations and epochs are always logged')
      .default(1),
  })
  .describe('A log of every flow. Off by default');

export const metricsSchema = z
  .strictObject({
    listen: endpointField().describe(
      'Address and port of /metrics, /healthz and /readyz; port 0: any free one',
    ),
  })
  .describe('Prometheus metrics and health of haports itself. Off by default');

/** sun_path of Linux holds 108 bytes, one of them the zero at the end (unix(7)). */
const SOCKET_PATH_BYTES = 107;

const socketPath = () => {
  const error = `the path of a Unix socket, at most ${SOCKET_PATH_BYTES} bytes`;
  return anyPath(error).refine(
    (path) => Buffer.byteLength(path) <= SOCKET_PATH_BYTES && !path.includes('\0'),
    { error },
  );
};

export const adminSchema = z
  .strictObject({
    socket: socketPath()
      .describe(
        'Unix socket of the admin API, as seen from the working directory. Only its owner may use it (0600)',
      )
      .exactOptional(),
    http: endpointField()
      .describe(
        'Address and port of the admin API and dashboard; port 0: any free one. Off loopback with tls and token only',
      )
      .exactOptional(),
    tls: z
      .strictObject({
        certificate: anyPath('the path of a PEM file').describe('PEM file of the certificate and its chain'),
        key: anyPath('the path of a PEM file').describe('PEM file of its private key, without a passphrase'),
      })
      .describe('HTTPS instead of HTTP on http. Needed off loopback')
      .exactOptional(),
    token: textField(
      'a token of 16 to 512 letters, digits and . _ ~ + / - =, such as "openssl rand -hex 32" prints',
      // What a Bearer header can carry: RFC 6750, 2.1.
      /^(?=.{16,512}$)[A-Za-z0-9._~+/-]+=*$/,
    )
      .describe('Bearer token that requests on http must carry. Needed off loopback')
      .exactOptional(),
  })
  .describe('The admin API and dashboard. Off by default');

export type AdminInput = z.output<typeof adminSchema>;

export const eventsSchema = z
  .strictObject({
    webhook: webhookField()
      .describe('Health events are posted to this URL, one JSON object a request. Default: nowhere')
      .exactOptional(),
  })
  .describe('Who is told of events besides the log. Off by default');

export const shutdownSchema = z
  .strictObject({
    deadline: durationField(0, 86_400_000)
      .describe('How long flows may finish after SIGTERM or SIGINT; a second signal ends at once')
      .prefault('30s'),
  })
  .describe('How haports ends');
