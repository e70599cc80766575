import type { IpAddress } from './address.js';

/** A type as it arrives on the other side of JSON: addresses are their canonical text. */
export type AsJson<T> = T extends IpAddress
  ? string
  : T extends readonly (infer Item)[]
    ? readonly AsJson<Item>[]
    : T extends object
      ? { readonly [Key in keyof T]: AsJson<T[Key]> }
      : T;

/**
 * JSON of plain data with every address in it as its canonical text, wherever it stands: the tuple of a flow record is
 * `{"protocol":"tcp","source":"192.0.2.7","sourcePort":40000,"destination":"192.0.2.1","destinationPort":443}`.
 */
export function plainJson(value: object): string {
  return JSON.stringify(value, (_key, member: unknown) => (isAddress(member) ? member.text : member));
}

function isAddress(value: unknown): value is IpAddress {
  return (
    typeof value === 'object' && value !== null && 'family' in value && 'bytes' in value && 'text' in value
  );
}
