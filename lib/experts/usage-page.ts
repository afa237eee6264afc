import { escapeHtml, renderHeatMap } from '../training/heat-map.js';
import { STYLE } from '../training/report-page.js';
import { shares } from './information.js';
import { EXPERT_KINDS, type DomainUsage, type ExpertKind, type UsageReport } from './usage.js';

const TITLES = { attention: 'Attention experts', mlp: 'MLP experts' } as const;

function thousandths(weights: readonly number[]): number[] {
  return shares(weights).map((share) => Math.round(1000 * share));
}

function heatMaps({ name, tokens, blocks }: DomainUsage): string {
  const maps = EXPERT_KINDS.map((kind) =>
    renderHeatMap(
      blocks.map((block) => thousandths(block[kind].choices)),
      TITLES[kind],
    ),
  );
  return `<section><h2>${escapeHtml(name)}</h2><p class="muted">${tokens.toLocaleString('en')} tokens. Each row is a router: the share of its rows, in percent, that went to each expert.</p><div class="scroll">${maps.join('')}</div></section>`;
}

function table(head: readonly string[], body: readonly (readonly string[])[]): string {
  const cells = (tag: string, row: readonly string[]): string =>
    row.map((cell, i) => `<${tag}${i > 0 ? ' class="number"' : ''}>${escapeHtml(cell)}</${tag}>`).join('');
  return `<div class="scroll"><table class="plain"><thead><tr>${cells('th', head)}</tr></thead><tbody>${body.map((row) => `<tr>${cells('td', row)}</tr>`).join('')}</tbody></table></div>`;
}

/** By block and kind: information about the domain, and each domain's entropies. */
function information({ domains, domainInformation }: UsageReport): string {
  const rows = domainInformation.flatMap((block, n) =>
    EXPERT_KINDS.map((kind) => [
      `block ${n}, ${kind === 'mlp' ? 'MLP' : kind}`,
      block[kind].toFixed(4),
      ...domains.map(({ blocks }) => {
        const { marginalEntropy, conditionalEntropy } = blocks[n]?.[kind] ?? {};
        return `${marginalEntropy?.toFixed(3) ?? ''} / ${conditionalEntropy?.toFixed(3) ?? ''}`;
      }),
    ]),
  );
  const head = [
    'router',
    'I(expert; domain)',
    ...domains.map(({ name }) => `${name}: H(expert) / H(expert | token)`),
  ];
  return `<section><h2>Information</h2><p class="muted">In nats. I(expert; domain) is 0 when all domains use the experts alike, and at most log ${domains.length} = ${Math.log(domains.length).toFixed(3)}. H(expert) is high when the load is even, H(expert | token) is low when the router is sure.</p>${table(head, rows)}</section>`;
}

function tokenSection({ tokens }: UsageReport, nameOf: (id: number) => string): string {
  if (tokens.length === 0) return '';
  const maps = tokens.map(({ id, count, blocks }) => {
    const map = (kind: ExpertKind): string =>
      renderHeatMap(
        blocks.map((block) => thousandths(block[kind])),
        TITLES[kind],
      );
    return `<h3>${escapeHtml(JSON.stringify(nameOf(id)))} (${count.toLocaleString('en')} times)</h3><div class="scroll">${EXPERT_KINDS.map(map).join('')}</div>`;
  });
  return `<section><h2>Tokens</h2>${maps.join('')}</section>`;
}

/**
 * Usage as one HTML page that needs no network and no other file: heat maps of blocks and experts for every domain, the
 * routers' entropies and what the experts tell about the domain.
 * @param nameOf the text of a token.
 */
export function renderUsage(
  report: UsageReport,
  { title = 'Expert usage', nameOf = String }: { title?: string; nameOf?: (id: number) => string } = {},
): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${escapeHtml(title)}</title>
<style>${STYLE}</style>
</head>
<body>
<header><h1>${escapeHtml(title)}</h1><p>Which experts the tokens of each domain go to.</p></header>
<main>
${[information(report), ...report.domains.map(heatMaps), tokenSection(report, nameOf)].filter(Boolean).join('\n')}
</main>
</body>
</html>
`;
}
