/** A line of the balancer's JSON log. */
export interface LogLine {
  readonly level: string;
  readonly msg: string;
  readonly event?: string;
  readonly [field: string]: unknown;
}

/** The JSON lines of a log, and whatever else stands there. */
export function splitLog(text: string): { readonly lines: readonly LogLine[]; readonly rest: string[] } {
  const all = text.split('\n').filter((line) => line !== '');
  const isJson = (line: string): boolean => line.startsWith('{"level":');
  return {
    lines: all.filter(isJson).map((line) => JSON.parse(line) as LogLine),
    rest: all.filter((line) => !isJson(line)),
  };
}

/** The log lines of one event. */
export function logEvents(text: string, event: string): readonly LogLine[] {
  return splitLog(text).lines.filter((line) => line.event === event);
}
