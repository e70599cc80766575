/** An error answer as RFC 9457 has it (application/problem+json). */
export function problem(
  status: number,
  title: string,
  extra: {
    readonly reasons?: readonly string[];
    readonly headers?: Readonly<Record<string, string>>;
  } = {},
): Response {
  const reasons = extra.reasons === undefined ? {} : { reasons: extra.reasons };
  return new Response(`${JSON.stringify({ type: 'about:blank', status, title, ...reasons })}\n`, {
    status,
    headers: { ...extra.headers, 'content-type': 'application/problem+json' },
  });
}
