import type { Socket } from 'node:net';
import type { IpAddress } from '../../../model/address.js';
import type { CapturePlan } from '../../../model/capture.js';
import type { Frontend } from '../../../model/configuration.js';
import type { Rule } from '../../../model/rule.js';
import type { CapturedEnd, CapturedEnds } from '../captured-ends.js';
import type { ListenerBinding } from '../listener.js';
import { capturedPortOfText } from './captured-port-text.js';

/** How a socket that listens on both families writes IPv4 addresses (RFC 4291, 2.5.5.2). */
const MAPPED = '::ffff:';

/**
 * Whose port a captured connection was made to, as the binding that a socket of that port alone would have; undefined:
 * nobody's. One system call.
 */
export function captureOf(
  socket: Socket,
  listener: ListenerBinding,
  { tcp, block }: CapturePlan,
): ListenerBinding | undefined {
  const { localAddress } = socket;
  const ends = endsOf(listener);
  if (localAddress === undefined || ends === undefined) return undefined;
  if (tcp === 'tproxy') {
    const { localPort = 0 } = socket;
    const address = localAddress.startsWith(MAPPED) ? localAddress.slice(MAPPED.length) : localAddress;
    return bindingAt(ends.of(address)?.at(localPort), localPort, listener);
  }
  const captured = capturedPortOfText(localAddress, block);
  if (captured < 0) return undefined;
  const port = captured & 0xffff;
  const end = ends.ofSlot(captured >>> 16)?.at(port);
  return end?.frontend.address.family === listener.address.family
    ? bindingAt(end, port, listener)
    : undefined;
}

function bindingAt(
  end: CapturedEnd | undefined,
  port: number,
  listener: ListenerBinding,
): ListenerBinding | undefined {
  return end === undefined ? undefined : new CapturedBinding(end, port, listener);
}

function endsOf({ captured }: ListenerBinding): CapturedEnds | undefined {
  return captured?.protocol === 'tcp' ? captured.ends : undefined;
}

/** Who serves one captured port: after a reload another rule, if one does; else who served it when the flow began. */
class CapturedBinding implements ListenerBinding {
  readonly protocol = 'tcp';
  readonly port: number;
  readonly #first: CapturedEnd;
  readonly #listener: ListenerBinding;

  constructor(first: CapturedEnd, port: number, listener: ListenerBinding) {
    this.#first = first;
    this.port = port;
    this.#listener = listener;
  }

  get address(): IpAddress {
    return this.#first.frontend.address;
  }

  get rule(): Rule {
    return this.#end.rule;
  }

  get ruleIndex(): number {
    return this.#end.ruleIndex;
  }

  get frontend(): Frontend {
    return this.#end.frontend;
  }

  get #end(): CapturedEnd {
    return endsOf(this.#listener)?.of(this.address.text)?.at(this.port) ?? this.#first;
  }
}
