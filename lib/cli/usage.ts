import { writeFileAtomic } from '../io/atomic.js';
import type { Tokenizer } from '../data/tokenizer.js';
import { ValueError } from '../errors.js';
import { shares } from '../experts/information.js';
import { renderUsage } from '../experts/usage-page.js';
import { EXPERT_KINDS, expertUsage, tokenExperts, type UsageReport } from '../experts/usage.js';
import type { ModuleFormerForCausalLM } from '../model/moduleformer.js';
import { grouped, printJson, printTable } from './command.js';
import { loadExperts, readDomains, readingTokenizer } from './reading.js';
import type { UsageFlags } from './usage-command.js';

export async function usage(path: string, flags: UsageFlags): Promise<void> {
  if (flags.text === undefined && flags.data === undefined) {
    throw new ValueError('usage: give texts (--data) or a text (--text)');
  }
  const { checkpoint, model } = await loadExperts(path, flags);
  const tokenizer = await readingTokenizer(flags, checkpoint, model);
  if (flags.text !== undefined) await showText(flags.text, model, tokenizer, flags);
  if (flags.data === undefined) return;
  const tokenIds = (flags.token ?? []).map((text) => singleToken(text, tokenizer));
  const report = await expertUsage(model, await readDomains(flags, tokenizer), { tokenIds });
  const nameOf = (id: number): string => tokenizer.decode([id]);
  if (flags.html !== undefined) {
    await writeFileAtomic(
      flags.html,
      renderUsage(report, { title: `Expert usage of ${checkpoint}`, nameOf }),
    );
  }
  if (flags.json)
    printJson({ checkpoint, ...report, ...(flags.html === undefined ? {} : { html: flags.html }) });
  else printReport(report, nameOf, flags.html);
}

function singleToken(text: string, tokenizer: Tokenizer): number {
  const ids = tokenizer.encode(text);
  if (ids.length === 1) return ids[0] as number;
  throw new ValueError(
    `--token ${JSON.stringify(text)}: ${ids.length} tokens to this tokenizer, expected one`,
  );
}

async function showText(
  text: string,
  model: ModuleFormerForCausalLM,
  tokenizer: Tokenizer,
  { json }: UsageFlags,
): Promise<void> {
  const ids = tokenizer.encode(text);
  if (ids.length === 0) throw new ValueError('usage: --text has no token');
  const blocks = await tokenExperts(model, { inputIds: [ids] });
  const tokens = ids.map((id, t) => ({
    token: tokenizer.decode([id]),
    experts: blocks.map((block) => ({
      attention: block.attention.experts[0]?.[t] ?? [],
      mlp: block.mlp.experts[0]?.[t] ?? [],
    })),
  }));
  if (json) {
    printJson({ tokens });
    return;
  }
  process.stdout.write('token: attention / MLP experts of each block, the one with the largest gate first\n');
  printTable(
    tokens.map(({ token, experts }) => [
      JSON.stringify(token),
      experts.map(({ attention, mlp }) => `${attention.join(',')} / ${mlp.join(',')}`).join('   '),
    ]),
  );
}

function printReport(
  { domains, domainInformation, tokens }: UsageReport,
  nameOf: (id: number) => string,
  html: string | undefined,
): void {
  const percent = (weights: readonly number[]): string =>
    shares(weights)
      .map((share) => String(Math.round(100 * share)).padStart(3))
      .join(' ');
  for (const { name, tokens: count, blocks } of domains) {
    process.stdout.write(`${name}: ${grouped(count)} tokens; rows to each expert in percent\n`);
    printTable(
      blocks.flatMap((block, n) =>
        EXPERT_KINDS.map((kind): [string, string] => {
          const { choices, marginalEntropy: h, conditionalEntropy: c } = block[kind];
          return [
            `  block ${n} ${kind}`,
            `${percent(choices)}   H ${h.toFixed(3)}, H(.|token) ${c.toFixed(3)}`,
          ];
        }),
      ),
    );
  }
  for (const { id, count, blocks } of tokens) {
    process.stdout.write(`${JSON.stringify(nameOf(id))}: ${grouped(count)} times\n`);
    printTable(
      blocks.flatMap((block, n) =>
        EXPERT_KINDS.map((kind): [string, string] => [`  block ${n} ${kind}`, percent(block[kind])]),
      ),
    );
  }
  if (domains.length > 1) {
    process.stdout.write(
      `I(expert; domain) in nats, at most ${Math.log(domains.length).toFixed(3)}: attention, mlp\n`,
    );
    printTable(
      domainInformation.map(({ attention, mlp }, n) => [
        `  block ${n}`,
        `${attention.toFixed(4)}  ${mlp.toFixed(4)}`,
      ]),
    );
  }
  if (html !== undefined) process.stdout.write(`heat maps: ${html}\n`);
}
