import type { LoadTable } from './report-series.js';

const ESCAPES: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => ESCAPES[character] ?? character);
}

/**
 * Shares of the routed rows, a row for each block and a column for each expert, as a table coloured by the style sheet
 * of the report. Empty without experts.
 * @param attributes more attributes of the table.
 */
export function renderHeatMap(table: LoadTable, title: string, attributes = ''): string {
  const experts = Math.max(0, ...table.map((row) => row.length));
  if (experts === 0) return '';
  const highest = Math.max(1, ...table.flat());
  const head = Array.from({ length: experts }, (_, expert) => `<th scope="col">${expert}</th>`).join('');
  const body = table.map((shares, block) => {
    const cells = shares.map((share, expert) => {
      const value = share / highest;
      const percent = (share / 10).toFixed(1);
      const relative = ((share * shares.length) / 1000).toFixed(2);
      return `<td${value > 0.6 ? ' class="hot"' : ''} style="--v:${value.toFixed(3)}" title="block ${block}, expert ${expert}: ${percent} % of the rows, ${relative} times an even share">${Math.round(share / 10)}</td>`;
    });
    return `<tr><th scope="row">block ${block}</th>${cells.join('')}</tr>`;
  });
  return `<table class="heat${experts > 32 ? ' dense' : ''}" style="min-width:${62 + 22 * experts}px" ${attributes}><caption>${escapeHtml(title)}</caption><thead><tr><td></td>${head}</tr></thead><tbody>${body.join('')}</tbody></table>`;
}
