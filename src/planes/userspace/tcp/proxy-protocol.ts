import {
  fromBytes,
  ipv6Bytes,
  parseIpAddress,
  unzonedText,
  type FiveTuple,
  type IpAddress,
} from '../../../model/address.js';

// HAProxy, "The PROXY protocol", versions 1 & 2 (doc/proxy-protocol.txt). Section numbers below are its own.

/** "108 bytes is enough to store all the line and a trailing zero" (2.1): 107 with CR LF. */
const V1_MAX_BYTES = 107;

/** The format allows 65,535; addresses take 216 at most, extensions a few hundred. */
const V2_MAX_BODY_BYTES = 4096;

const V1_PREFIX: Uint8Array = Uint8Array.from(Buffer.from('PROXY ', 'latin1'));
const V2_SIGNATURE: Uint8Array = Uint8Array.of(13, 10, 13, 10, 0, 13, 10, 81, 85, 73, 84, 10);
const V2_HEAD_BYTES = 16;
const V2_LOCAL = 0x20;
const V2_PROXY = 0x21;
const V2_TCP_OVER_IPV4 = 0x11;
const V2_TCP_OVER_IPV6 = 0x21;

const ADDRESS_BYTES: ReadonlyMap<number, number> = new Map([
  [V2_TCP_OVER_IPV4, 4],
  [V2_TCP_OVER_IPV6, 16],
]);

const CR = 13;
const LF = 10;

/** Most bytes that can be needed before parseProxyHeader decides. */
export const PROXY_HEADER_MAX_BYTES = V2_HEAD_BYTES + V2_MAX_BODY_BYTES;

export type ProxyHeader =
  /** Right so far; more bytes are needed. */
  | { readonly kind: 'incomplete' }
  /** `identity` is missing where the header carries none that TCP over IP can have: the socket's addresses hold. */
  | {
      readonly kind: 'complete';
      readonly length: number;
      readonly identity?: ProxyIdentity;
      /** Of version 2: the header has extensions (TLVs) behind the addresses. */
      readonly hasExtensions?: true;
    }
  | { readonly kind: 'invalid'; readonly error: string };

const INCOMPLETE: ProxyHeader = { kind: 'incomplete' };

/**
 * Reads a PROXY protocol header at the start of a stream, given all bytes so far. Decides as early as it can: at the
 * first wrong byte, or at the last byte of the header. Never throws. Bytes from `length` on belong to the stream.
 */
export function parseProxyHeader(bytes: Uint8Array, accept: 'v1' | 'v2' | 'any'): ProxyHeader {
  if (bytes.length === 0) return INCOMPLETE;
  if (accept !== 'v2' && startsAlike(bytes, V1_PREFIX)) return parseV1(bytes);
  if (accept !== 'v1' && startsAlike(bytes, V2_SIGNATURE)) return parseV2(bytes);
  return invalid('must start with a PROXY protocol signature');
}

/** Whether neither contradicts the other, as far as the shorter goes. */
function startsAlike(bytes: Uint8Array, expected: Uint8Array): boolean {
  const length = Math.min(bytes.length, expected.length);
  for (let index = 0; index < length; index++) if (bytes[index] !== expected[index]) return false;
  return true;
}

function parseV1(bytes: Uint8Array): ProxyHeader {
  const end = bytes.subarray(0, V1_MAX_BYTES).indexOf(LF);
  if (end < 0) {
    return bytes.length < V1_MAX_BYTES ? INCOMPLETE : invalid(`line must end within ${V1_MAX_BYTES} bytes`);
  }
  if (bytes[end - 1] !== CR) return invalid('line must end in CR LF');
  const line = Buffer.from(bytes.subarray(V1_PREFIX.length, end - 1)).toString('latin1');
  const length = end + 1;
  // "The receiver must ignore anything presented before the CRLF is found" (2.1).
  if (line === 'UNKNOWN' || line.startsWith('UNKNOWN ')) return { kind: 'complete', length };
  const [family, source, destination, sourcePort, destinationPort, ...rest] = line.split(' ');
  if (rest.length > 0) return invalid('line must have six words');
  const identity = identityOf(
    v1Address(source, family),
    v1Port(sourcePort),
    v1Address(destination, family),
    v1Port(destinationPort),
  );
  if (identity === undefined) return invalid('addresses and ports must be valid');
  return { kind: 'complete', length, identity };
}

function v1Address(text: string | undefined, family: string | undefined): IpAddress | undefined {
  if (text === undefined || text.includes('%')) return undefined;
  // By the form on the line: an IPv4-mapped address is a TCP6 one, whatever it is taken for later.
  if (family !== (text.includes(':') ? 'TCP6' : 'TCP4')) return undefined;
  return parseIpAddress(text);
}

function v1Port(text: string | undefined): number | undefined {
  if (text === undefined || !/^(?:0|[1-9]\d{0,4})$/.test(text)) return undefined;
  const port = Number(text);
  return port <= 65535 ? port : undefined;
}

function parseV2(bytes: Uint8Array): ProxyHeader {
  const versionAndCommand = bytes[12];
  if (versionAndCommand !== undefined && versionAndCommand !== V2_LOCAL && versionAndCommand !== V2_PROXY) {
    return invalid('version must be 2 and command LOCAL or PROXY');
  }
  const familyAndTransport = bytes[13];
  if (familyAndTransport !== undefined && (familyAndTransport >> 4 > 3 || (familyAndTransport & 0xf) > 2)) {
    return invalid('address family and transport must be known');
  }
  if (bytes.length < V2_HEAD_BYTES) return INCOMPLETE;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const bodyBytes = view.getUint16(14);
  if (bodyBytes > V2_MAX_BODY_BYTES) return invalid(`length must be ${V2_MAX_BODY_BYTES} at most`);
  // LOCAL, and anything but TCP over IPv4 or IPv6: "use the real connection endpoints" (2.2).
  const addressBytes = versionAndCommand === V2_LOCAL ? 0 : (ADDRESS_BYTES.get(familyAndTransport ?? 0) ?? 0);
  if (addressBytes > 0 && bodyBytes < 2 * addressBytes + 4) return invalid('length must cover the addresses');
  const length = V2_HEAD_BYTES + bodyBytes;
  if (bytes.length < length) return INCOMPLETE;
  if (addressBytes === 0) return { kind: 'complete', length };
  const sourceEnd = V2_HEAD_BYTES + addressBytes;
  const destinationEnd = sourceEnd + addressBytes;
  if (!areTlvs(view, destinationEnd + 4, length)) return invalid('extensions must fill the length exactly');
  const identity = {
    source: fromBytes(bytes.subarray(V2_HEAD_BYTES, sourceEnd)),
    sourcePort: view.getUint16(destinationEnd),
    destination: fromBytes(bytes.subarray(sourceEnd, destinationEnd)),
    destinationPort: view.getUint16(destinationEnd + 2),
  };
  const hasExtensions = length > destinationEnd + 4;
  return { kind: 'complete', length, identity, ...(hasExtensions && { hasExtensions }) };
}

/** Type (1), length (2), value: none is read, all must fit (2.2). */
function areTlvs(view: DataView, start: number, end: number): boolean {
  let offset = start;
  while (offset + 3 <= end) offset += 3 + view.getUint16(offset + 1);
  return offset === end;
}

/** Undefined if a part is missing. */
function identityOf(
  source: IpAddress | undefined,
  sourcePort: number | undefined,
  destination: IpAddress | undefined,
  destinationPort: number | undefined,
): ProxyIdentity | undefined {
  if (source === undefined || destination === undefined) return undefined;
  if (sourcePort === undefined || destinationPort === undefined) return undefined;
  return { source, sourcePort, destination, destinationPort };
}

function invalid(error: string): ProxyHeader {
  return { kind: 'invalid', error: `PROXY protocol header ${error}` };
}

/**
 * What a PROXY protocol header says of a connection. Its addresses are of one family; where one of them is IPv4-mapped,
 * and so held as IPv4, the other may be IPv6.
 */
export type ProxyIdentity = Omit<FiveTuple, 'protocol'>;

/** The PROXY protocol header (HAProxy, doc/proxy-protocol.txt, sections 2.1 and 2.2) of a TCP connection. */
export function writeProxyHeader(version: 'v1' | 'v2', identity: ProxyIdentity): Buffer {
  return version === 'v1' ? writeV1(identity) : writeV2(identity);
}

function writeV1({ source, sourcePort, destination, destinationPort }: ProxyIdentity): Buffer {
  const family = familyOf(source, destination);
  const addresses = [source, destination].map((address) => textIn(family, address)).join(' ');
  return Buffer.from(`PROXY TCP${family} ${addresses} ${sourcePort} ${destinationPort}\r\n`, 'latin1');
}

function writeV2({ source, sourcePort, destination, destinationPort }: ProxyIdentity): Buffer {
  const isIpv4 = familyOf(source, destination) === 4;
  const addresses = [source, destination].flatMap((address) => (isIpv4 ? address.bytes : ipv6Bytes(address)));
  const bodyBytes = addresses.length + 4;
  const ports = [sourcePort >> 8, sourcePort & 0xff, destinationPort >> 8, destinationPort & 0xff];
  return Buffer.from([
    ...V2_SIGNATURE,
    V2_PROXY,
    isIpv4 ? V2_TCP_OVER_IPV4 : V2_TCP_OVER_IPV6,
    bodyBytes >> 8,
    bodyBytes & 0xff,
    ...addresses,
    ...ports,
  ]);
}

function familyOf(source: IpAddress, destination: IpAddress): 4 | 6 {
  return source.family === 4 && destination.family === 4 ? 4 : 6;
}

/** Without a zone, which means something on this machine only. */
function textIn(family: 4 | 6, address: IpAddress): string {
  if (address.family !== family) return `::ffff:${address.text}`;
  return unzonedText(address);
}
