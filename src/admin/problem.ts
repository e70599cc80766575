/** An error answer as RFC 9457 has it (application/problem+json). */
export function problem(
  status: number,
  title: string,
  extra: {
    /** What is there and what must be. */
    readonly detail?: string;
    /** Stable: `LB_...`. */
    readonly code?: string;
    readonly reasons?: readonly string[];
    /** Of the validator. */
    readonly findings?: readonly unknown[];
    readonly headers?: Readonly<Record<string, string>>;
  } = {},
): Response {
  const { headers, ...members } = extra;
  return new Response(`${JSON.stringify({ type: 'about:blank', status, title, ...members })}\n`, {
    status,
    headers: { ...headers, 'content-type': 'application/problem+json' },
  });
}
