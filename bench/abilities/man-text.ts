/** Macros whose arguments are text. */
const TEXT_MACRO =
  /^\.\s*(?:B|I|BR|BI|IR|IB|RB|RI|SM|SB|SH|SS|TP|IP|Nm|Nd|Sh|Ss|Fl|Ar|Xr|Pa|Dv|Em|Li|Cm)\b\s*(.*)$/;
const SPECIAL: Record<string, string> = {
  '-': '-',
  hy: '-',
  aq: "'",
  cq: '’',
  oq: '‘',
  lq: '“',
  rq: '”',
  em: '—',
  en: '–',
  bu: '•',
  dq: '"',
};

/** The plain text of a manual page, without the macros and escapes of troff. */
export function manText(source: string): string {
  const lines = source.split('\n').flatMap((line): string[] => {
    if (/^['.]\s*\\"/.test(line)) return [];
    if (!/^['.]/.test(line)) return [plain(line)];
    const text = TEXT_MACRO.exec(line)?.[1];
    if (/^\.\s*(?:PP|P|LP|sp|Pp)\b/.test(line)) return [''];
    return text === undefined || text === '' ? [] : [plain(text.replace(/"([^"]*)"/g, '$1'))];
  });
  return lines
    .join('\n')
    .replace(/\n{3,}/g, '\n\n')
    .trim();
}

function plain(text: string): string {
  return text
    .replace(/\\".*$/, '')
    .replace(/\\f(?:\[[^\]]*\]|\(..|.)/g, '')
    .replace(/\\\((..)/g, (_, name: string) => SPECIAL[name] ?? '')
    .replace(/\\\[([^\]]*)\]/g, (_, name: string) => SPECIAL[name] ?? '')
    .replace(/\\[*ns](?:\[[^\]]*\]|\(..|[-+]?\d|.)/g, '')
    .replace(/\\[&|^%c/:]/g, '')
    .replace(/\\(.)/g, (_, letter: string) => (letter === 'e' ? '\\' : letter));
}
