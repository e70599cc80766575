/**
 * Lines of a text, broken at single blanks so that none is wider, all but the first indented. Blanks at the start and
 * several in a row stay as they are; a word wider than a line is not broken.
 */
export function wrapWords(text: string, width: number, indent: number): string[] {
  const lines: string[] = [];
  let rest = text;
  while (rest.length > width) {
    const from = lines.length === 0 ? leadingBlanks(rest) : indent;
    const cut = breakAt(rest, from, width);
    if (cut < 0) break;
    lines.push(rest.slice(0, cut).trimEnd());
    rest = `${' '.repeat(indent)}${rest.slice(cut).trimStart()}`;
  }
  return [...lines, rest];
}

function leadingBlanks(text: string): number {
  return text.length - text.trimStart().length;
}

/** The last blank within the width, else the first beyond it, behind what must stay together; -1: none. */
function breakAt(text: string, from: number, width: number): number {
  const within = text.lastIndexOf(' ', width);
  return within > from ? within : text.indexOf(' ', Math.max(from, width));
}
