/** The style sheet of `report.html`. Colours are variables, so that charts drawn by script follow the theme. */
export const STYLE = `
:root {
  color-scheme: light dark;
  --page: #f4f6f9; --card: #ffffff; --text: #1b2430; --muted: #5d6b7c; --line: #dfe4ea; --grid: #e9edf2;
  --blue: #2563eb; --pale: #a9c1f5; --orange: #e2620d; --heat: 37 99 235; --hot-text: #ffffff;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0e131a; --card: #161d27; --text: #e3e9f0; --muted: #93a1b3; --line: #2a3442; --grid: #222b37;
    --blue: #6ea0ff; --pale: #38517f; --orange: #ff9a4d; --heat: 110 160 255; --hot-text: #0b1220;
  }
}
* { box-sizing: border-box; }
body { margin: 0; padding: 32px 20px 64px; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main, header { max-width: 1120px; margin: 0 auto; }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -.01em; }
h2 { font-size: 18px; margin: 0 0 4px; }
h3 { font-size: 14px; margin: 0 0 6px; font-weight: 600; }
p { margin: 0 0 12px; }
.muted, header p { color: var(--muted); }
.notice { border-left: 4px solid var(--orange); padding: 8px 14px; background: var(--card); border-radius: 4px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 20px 22px; margin-top: 18px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 140px), 1fr)); gap: 12px; margin: 20px 0 0; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 12px 16px; }
.tiles dt { color: var(--muted); font-size: 13px; }
.tiles dd { margin: 0; font-size: 21px; font-weight: 600; font-variant-numeric: tabular-nums; }
.small-charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 310px), 1fr)); gap: 18px 22px; margin-top: 12px; }
figure { margin: 0; min-width: 0; }
.chart { width: 100%; overflow: hidden; }
.bar { display: flex; flex-wrap: wrap; gap: 8px 20px; align-items: center; justify-content: space-between; }
.bar label { color: var(--muted); font-size: 13.5px; }
select { font: inherit; color: inherit; background: var(--page); border: 1px solid var(--line); border-radius: 6px; padding: 2px 6px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; color: var(--muted); font-size: 13px; margin: 4px 0 8px; }
.legend i { display: inline-block; width: 18px; height: 3px; border-radius: 2px; margin-right: 6px; vertical-align: middle; }
.u-legend { color: var(--text); font-size: 12.5px; text-align: left; }
.uplot { width: 100%; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.plain { width: 100%; }
.plain th, .plain td { text-align: left; padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
.plain th { font-weight: 500; color: var(--muted); white-space: nowrap; }
.plain td { overflow-wrap: anywhere; }
.plain .number { text-align: right; white-space: nowrap; }
.plain .meter-cell { width: 70%; vertical-align: middle; }
.scroll { overflow-x: auto; }
details { margin-top: 12px; }
summary { cursor: pointer; color: var(--muted); font-size: 13.5px; }
.meter { height: 10px; border-radius: 5px; background: var(--blue); min-width: 2px; }
.heat { width: 100%; table-layout: fixed; border-spacing: 0; font-size: 11px; line-height: 20px; }
.heat td { padding: 0; text-align: center; border: 1px solid var(--card); background: rgb(var(--heat) / var(--v)); }
.heat td.hot { color: var(--hot-text); }
.heat th { font-weight: 400; color: var(--muted); padding: 0 6px 0 0; text-align: right; white-space: nowrap; }
.heat thead th { text-align: center; padding: 0; }
.heat th:first-child, .heat thead td { width: 62px; }
.heat thead td { background: none; }
.heat caption { text-align: left; font-size: 14px; font-weight: 600; color: var(--text); padding: 10px 0 4px; }
.heat.dense td { font-size: 0; }
.heat.time td { border-width: 0 0 1px; height: 16px; font-size: 0; line-height: 16px; }
.scale { display: inline-block; width: 130px; height: 10px; border-radius: 5px; vertical-align: middle; margin: 0 6px;
  background: linear-gradient(to right, rgb(var(--heat) / .03), rgb(var(--heat))); border: 1px solid var(--line); }
.samples pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--page); border-radius: 8px; padding: 12px 14px;
  margin: 4px 0 16px; font: 13.5px/1.55 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.samples .prompt { color: var(--muted); }
@media (min-width: 800px) { .tiles { grid-template-columns: repeat(4, 1fr); } }
@media print { body { background: none; padding: 0; } section { break-inside: avoid; } }
`;

/** The script of `report.html`: draws the charts with uPlot and the load over time, from the JSON in the page. */
export const SCRIPT = `
'use strict';
const { series, history } = JSON.parse(document.getElementById('data').textContent);
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();
const compact = (value) => {
  if (value === null || value === undefined) return '–';
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e9)) return value.toExponential(2);
  return size >= 1000 ? Math.round(value).toLocaleString('en') : String(Number(value.toPrecision(4)));
};
const tick = (value) => {
  const size = Math.abs(value);
  if (size >= 1e6) return Number((value / 1e6).toPrecision(4)) + 'M';
  if (size >= 1e4) return Number((value / 1e3).toPrecision(4)) + 'k';
  return size !== 0 && size < 1e-3 ? value.toExponential() : String(Number(value.toPrecision(6)));
};

const CHARTS = [
  { id: 'loss', height: 300, legend: true, lines: [
    { label: 'training', column: 'crossEntropy', stroke: series.step.length < 50 ? 'blue' : 'pale', width: 1.5 },
    { label: 'training, smoothed', column: 'smoothed', stroke: 'blue', width: 2 },
    { label: 'validation', column: 'validation', stroke: 'orange', width: 2, spanGaps: true, points: true },
  ] },
  { id: 'lr', lines: [{ label: 'learning rate', column: 'lr', stroke: 'blue' }] },
  { id: 'grad-norm', lines: [{ label: 'gradient norm', column: 'gradNorm', stroke: 'blue' }] },
  { id: 'tokens-per-second', lines: [{ label: 'tokens/s', column: 'tokensPerSecond', stroke: 'blue' }], zero: true },
  { id: 'total-loss', lines: [{ label: 'loss', column: 'loss', stroke: 'blue' }] },
  { id: 'aux-loss', lines: [{ label: 'auxiliary loss', column: 'auxLoss', stroke: 'blue' }] },
  { id: 'concentration', lines: [{ label: 'concentration loss', column: 'concentrationLoss', stroke: 'blue' }] },
  { id: 'entropy', lines: [
    { label: 'H(expert)', column: 'marginalEntropy', stroke: 'blue' },
    { label: 'H(expert | token)', column: 'conditionalEntropy', stroke: 'orange' },
  ] },
  { id: 'balance', lines: [
    { label: 'attention', column: 'attentionBalance', stroke: 'blue' },
    { label: 'MLP', column: 'mlpBalance', stroke: 'orange' },
  ] },
];
const present = (line) => series[line.column].some((value) => value !== null);

function padded(zero) {
  return (chart, low, high) => {
    if (low === null || high === null) return [0, 1];
    const room = 0.06 * (high - low) || Math.abs(high) * 0.1 || 1;
    return [zero ? Math.min(0, low) : low - room, high + room];
  };
}

function drawChart({ id, lines, height = 170, legend = false, zero = false }, logSteps) {
  const target = document.getElementById('chart-' + id);
  const shown = lines.filter(present);
  target.replaceChildren();
  if (shown.length === 0) { target.textContent = 'nothing was recorded'; return; }
  const axis = { stroke: color('muted'), grid: { stroke: color('grid'), width: 1 }, ticks: { show: false }, font: '12px system-ui' };
  const lone = series.step.length === 1;
  const chart = new uPlot({
    width: target.clientWidth, height, legend: { show: legend, live: true }, cursor: { y: false, drag: { x: true, y: false } },
    scales: {
      x: { time: false, distr: logSteps ? 3 : 1, range: (_, low, high) => (lone ? [low - 1, high + 1] : [low, high]) },
      y: { range: padded(zero) },
    },
    axes: [
      { ...axis, size: 30, values: (_, ticks) => ticks.map((value) => (value === null || value % 1 !== 0 ? '' : tick(value))) },
      { ...axis, size: 58, values: (_, ticks) => ticks.map(tick) },
    ],
    series: [
      { label: 'step', value: (_, value) => compact(value) },
      ...shown.map((line) => ({
        label: line.label, stroke: color(line.stroke), width: line.width || 1.5, spanGaps: line.spanGaps || false,
        points: { show: line.points || lone || undefined, size: 6, fill: color(line.stroke) }, value: (_, value) => compact(value),
      })),
    ],
    hooks: legend ? {} : { setCursor: [(self) => {
      const index = self.cursor.idx;
      document.getElementById('value-' + id).textContent = index === null || index === undefined ? '' :
        'step ' + compact(series.step[index]) + ': ' + shown.map((line) => compact(series[line.column][index])).join(' / ');
    }] },
  }, [logSteps ? series.step.map((step) => Math.max(step, 1)) : series.step, ...shown.map((line) => series[line.column])], target);
  return chart;
}

let drawn = [];
function drawCharts() {
  for (const chart of drawn) chart.destroy();
  const logSteps = document.getElementById('log-steps').checked && series.step.length > 1;
  drawn = CHARTS.map((chart) => drawChart(chart, logSteps)).filter(Boolean);
}

function drawHistory() {
  const kind = document.getElementById('history-kind').value;
  const block = Number(document.getElementById('history-block').value);
  const columns = history[kind][block];
  const experts = Math.max(...columns.map((column) => column.length));
  const highest = Math.max(1, ...columns.flat());
  const body = document.createElement('tbody');
  for (let expert = 0; expert < experts; expert++) {
    const row = body.insertRow();
    const head = document.createElement('th');
    head.scope = 'row';
    head.textContent = 'expert ' + expert;
    row.append(head);
    columns.forEach((column, index) => {
      const cell = row.insertCell();
      const share = column[expert] || 0;
      cell.style.setProperty('--v', (share / highest).toFixed(3));
      cell.textContent = (share / 10).toFixed(1);
      cell.title = 'expert ' + expert + ', up to step ' + history.step[index] + ': ' + (share / 10).toFixed(1) + ' %';
    });
  }
  document.getElementById('history').replaceChildren(body);
  document.getElementById('history-highest').textContent = (highest / 10).toFixed(1) + ' %';
}

if (series.step.length > 0) {
  drawCharts();
  document.getElementById('log-steps').addEventListener('change', drawCharts);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawCharts);
  addEventListener('resize', () => {
    for (const chart of drawn) chart.setSize({ width: chart.root.parentElement.clientWidth, height: chart.height });
  });
}
if (document.getElementById('history')) {
  drawHistory();
  for (const id of ['history-kind', 'history-block']) document.getElementById(id).addEventListener('change', drawHistory);
  document.getElementById('load-period').addEventListener('change', (event) => {
    for (const table of document.querySelectorAll('[data-period]')) table.hidden = table.dataset.period !== event.target.value;
  });
}
`;
