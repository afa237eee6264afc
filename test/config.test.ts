import { readdirSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { ConfigError } from '../lib/errors.js';
import { SafetensorsFile } from '../lib/io/safetensors.js';
import { ModuleFormerConfig, type ModuleFormerConfigInit } from '../lib/model/config.js';
import { countParameters } from '../lib/model/count-parameters.js';
import { DenseConfig, type DenseConfigInit } from '../lib/model/dense-config.js';
import { PRESETS, presetConfig } from '../lib/model/presets.js';
import { temporaryDirectory } from './support/files.js';

const GOLDEN = fileURLToPath(new URL('./golden/', import.meta.url));
const goldenCases = readdirSync(GOLDEN, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map(({ name }) => name);

test('the defaults are the reference’s', (t) => {
  t.deepEqual(new ModuleFormerConfig().toJSON(), {
    model_type: 'moduleformer',
    vocab_size: 50295,
    block_size: 512,
    history_length: 512,
    n_embd: 1024,
    n_layer: 24,
    n_head: 8,
    att_hidden: 512,
    ffd_hidden: 2048,
    activation_function: 'gelu_new',
    resid_pdrop: 0,
    embd_pdrop: 0,
    attn_pdrop: 0,
    moe_pdrop: 0,
    sample_topk: 0,
    gating_size: 256,
    n_att_experts: 32,
    k_att: 2,
    n_mlp_experts: 32,
    k_mlp: 2,
    layer_norm_epsilon: 1e-5,
    initializer_range: 0.02,
    bos_token_id: 50256,
    eos_token_id: 50256,
    pad_token_id: null,
    tie_word_embeddings: false,
    aux_loss_type: 'mi',
    aux_loss_weight: 0,
    gate_type: 'mlp',
    attend_current: true,
    attend_remainder: false,
    problem_type: null,
  });
});

test('the golden configs are read, and every field of the file is there again', async (t) => {
  t.true(goldenCases.length >= 5);
  for (const name of goldenCases) {
    const file = JSON.parse(await readFile(join(GOLDEN, name, 'config.json'), 'utf8')) as object;
    const config = await ModuleFormerConfig.fromFile(join(GOLDEN, name));
    t.like(config.toJSON(), file);
    t.deepEqual(new ModuleFormerConfig(config.toJSON()), config);
    t.deepEqual(new ModuleFormerConfig(config), config);
  }
});

test('what transformers wrote survives a round trip through a file', async (t) => {
  const written = {
    model_type: 'moduleformer',
    architectures: ['ModuleFormerForSequenceClassification'],
    transformers_version: '4.31.0',
    torch_dtype: 'bfloat16',
    dtype: null,
    use_cache: true,
    n_ctx: 12288,
    id2label: { '0': 'no', '1': 'yes', '2': 'maybe' },
    label2id: { no: 0, yes: 1, maybe: 2 },
    auto_map: { AutoConfig: 'configuration_moduleformer.ModuleFormerConfig' },
    att_func: 'stickbreaking',
    _name_or_path: 'ibm/MoLM-350M-4B',
    task_specific_params: { a: [1, null, { b: 'c' }] },
    bad_words_ids: [[1, 2]],
    top_p: 1.0,
    pruned_heads: {},
    n_embd: 8,
    eos_token_id: null,
    pad_token_id: -1,
  } as const;
  const path = join(await temporaryDirectory(t), 'some.json');
  await writeFile(path, JSON.stringify(written));
  const config = await ModuleFormerConfig.fromFile(path);
  t.like(config.toJSON(), written);
  t.is(config.num_labels, 3);
  t.is(JSON.stringify(new ModuleFormerConfig(config.toJSON())), JSON.stringify(config));
});

test('an instance never changes, and neither does what it was made of', (t) => {
  const id2label = { '0': 'a', '1': 'b' };
  const config = new ModuleFormerConfig({ id2label });
  id2label['1'] = 'c';
  t.throws(() => Object.assign(config, { n_embd: 3 }), { instanceOf: TypeError });
  t.throws(() => Object.assign(config.id2label as object, { '0': 'x' }), { instanceOf: TypeError });
  Object.assign(config.toJSON()['id2label'] as object, { '0': 'x' });
  t.deepEqual(config.id2label, { '0': 'a', '1': 'b' });
});

test('num_labels is what is given, what id2label has, or 2', (t) => {
  t.is(new ModuleFormerConfig().num_labels, 2);
  t.is(new ModuleFormerConfig({ num_labels: 5 }).num_labels, 5);
  t.is(new ModuleFormerConfig({ id2label: { '0': 'a', '1': 'b', '2': 'c' } }).num_labels, 3);
  for (const init of [{ num_labels: 5 }, { id2label: { '0': 'a' } }, {}]) {
    const config = new ModuleFormerConfig(init);
    t.is(new ModuleFormerConfig(config.toJSON()).num_labels, config.num_labels);
  }
});

const refused: [fields: object | null, message: RegExp][] = [
  [null, /expected object, got null/],
  [[], /expected object, got \[\]/],
  [{ n_embd: 0 }, /^ModuleFormerConfig: n_embd: expected a positive integer, got 0$/],
  [{ n_layer: 1.5 }, /n_layer: expected a positive integer, got 1.5/],
  [{ n_head: '8' }, /n_head: expected a positive integer, got "8"/],
  [{ vocab_size: 2 ** 31 }, /vocab_size: expected a positive integer of 32 bits, got 2147483648/],
  [{ gating_size: NaN }, /gating_size: expected a positive integer, got NaN/],
  [{ ffd_hidden: null }, /ffd_hidden: expected a positive integer, got null/],
  [{ resid_pdrop: 1 }, /resid_pdrop: expected a number in \[0, 1\), got 1/],
  [{ embd_pdrop: -0.1 }, /embd_pdrop: expected a number in \[0, 1\), got -0.1/],
  [{ moe_pdrop: NaN }, /moe_pdrop: expected a number in \[0, 1\), got NaN/],
  [{ attn_pdrop: 0.1 }, /attn_pdrop: .* must be 0, got 0.1/],
  [{ tie_word_embeddings: true }, /tie_word_embeddings: .* must be false, got true/],
  [{ pruned_heads: { 1: [0] } }, /pruned_heads: no heads can be pruned/],
  [{ is_encoder_decoder: true }, /is_encoder_decoder: there is no encoder/],
  [
    { activation_function: 'tanh' },
    /activation_function: expected one of "gelu_new"\|"gelu"\|"silu"\|"relu", got "tanh"/,
  ],
  [{ gate_type: 'top2' }, /gate_type: expected one of "mlp"\|"linear"\|"gmm", got "top2"/],
  [{ aux_loss_type: 'none' }, /aux_loss_type: expected one of "mi"\|"switch", got "none"/],
  [{ problem_type: 'ranking' }, /problem_type: expected one of .* got "ranking"/],
  [{ att_func: 'softmax' }, /att_func: expected "stickbreaking", got "softmax"/],
  [{ model_type: 'gpt2' }, /model_type: expected "moduleformer", got "gpt2"/],
  [{ attend_current: 1 }, /attend_current: expected boolean, got 1/],
  [{ aux_loss_weight: -1 }, /aux_loss_weight: expected a non-negative number, got -1/],
  [{ initializer_range: Infinity }, /initializer_range: expected a non-negative number, got Infinity/],
  [{ layer_norm_epsilon: 0 }, /layer_norm_epsilon: expected a positive number, got 0/],
  [{ eos_token_id: 'eos' }, /eos_token_id: expected an integer or null, got "eos"/],
  [{ sample_topk: -1 }, /sample_topk: expected a non-negative integer, got -1/],
  [{ k_att: 9, n_att_experts: 8 }, /k_att \(9\) must be at most n_att_experts \(8\)/],
  [{ k_mlp: 3, n_mlp_experts: 2 }, /k_mlp \(3\) must be at most n_mlp_experts \(2\)/],
  [{ sample_topk: 3, k_mlp: 4 }, /sample_topk \(3\) must be at most k_att \(2\)/],
  [{ att_hidden: 100 }, /att_hidden \(100\) must be a multiple of n_head \(8\)/],
  [{ id2label: { a: 'x' } }, /id2label.a: invalid key/],
  [{ id2label: {} }, /id2label names no label/],
  [
    { id2label: { 0: 'x' }, num_labels: 2 },
    /num_labels \(2\) must be the number of labels in id2label \(1\)/,
  ],
  [{ hidden_size: 1024 }, /unknown field "hidden_size", did you mean "n_embd"\?/],
  [{ n_heads: 4 }, /unknown field "n_heads", did you mean "n_head"\?/],
  [{ quantization_config: { bits: 4 } }, /unknown field "quantization_config"$/],
  [{ torch_dtype: () => 1 }, /torch_dtype: expected a JSON value, got function/],
];

for (const [fields, message] of refused) {
  test(`refused: ${message.source}`, (t) => {
    const error = t.throws(() => new ModuleFormerConfig(fields as ModuleFormerConfigInit), {
      instanceOf: ConfigError,
      message,
    });
    t.is(error?.code, 'MF_CONFIG');
  });
}

test('all problems are told at once', (t) => {
  const fields = { n_embd: -1, n_layer: 'x', colour: 'blue' } as unknown as ModuleFormerConfigInit;
  t.throws(() => new ModuleFormerConfig(fields), {
    message: /n_embd: .*; n_layer: .*; unknown field "colour"/,
  });
});

test('a file that cannot be used is named', async (t) => {
  const dir = await temporaryDirectory(t);
  const path = join(dir, 'config.json');
  const fails = (message: RegExp) =>
    t.throwsAsync(ModuleFormerConfig.fromFile(dir), { instanceOf: ConfigError, message });
  await fails(/cannot read .*config\.json: ENOENT/);
  for (const [content, message] of [
    ['{"n_embd": 8', /config\.json: not valid JSON: expected ',' or '}' at character 12/],
    ['{"n_embd": 8, "n_embd": 16}', /config\.json: .*"n_embd" occurs again/],
    ['{"__proto__": {"n_embd": 8}}', /unknown field "__proto__"/],
    ['[]', /config\.json: .*expected object/],
    ['{"n_embd": "8"}', /config\.json: ModuleFormerConfig: n_embd: expected a positive integer, got "8"/],
  ] as const) {
    await writeFile(path, content);
    await fails(message);
  }
  await writeFile(path, '{"auto_map": {"__proto__": {"polluted": 1}}}');
  await ModuleFormerConfig.fromFile(dir);
  t.false('polluted' in {});
});

test('a dense config has Pythia’s defaults and is as strict', async (t) => {
  const config = new DenseConfig({ n_embd: 512, n_head: 8 });
  t.like(config, {
    model_type: 'moduleformer-dense',
    ffd_hidden: 2048,
    activation_function: 'gelu',
    attention_type: 'softmax',
    rotary_pct: 0.25,
    rotary_base: 10000,
    use_parallel_residual: true,
    layer_norm_epsilon: 1e-5,
    headSize: 64,
    rotarySize: 16,
  });
  t.is(new DenseConfig({ attention_type: 'stickbreaking' }).rotary_pct, 0);
  const path = join(await temporaryDirectory(t), 'dense.json');
  await writeFile(path, JSON.stringify(config));
  t.deepEqual(await DenseConfig.fromFile(path), config);

  const cases: [object, RegExp][] = [
    [{ n_embd: 10, n_head: 4 }, /n_embd \(10\) must be a multiple of n_head \(4\)/],
    [{ n_embd: 12, n_head: 1 }, /rotary_pct \(0.25\) must rotate pairs, but gives 3 of 12 channels/],
    [{ rotary_pct: 1.5 }, /rotary_pct: expected a number in \[0, 1\], got 1.5/],
    [{ attention_type: 'stickbreaking', rotary_pct: 0.25 }, /rotary_pct \(0.25\) must be 0/],
    [{ attention_type: 'linear' }, /attention_type: expected one of "softmax"\|"stickbreaking"/],
    [{ model_type: 'moduleformer' }, /model_type: expected "moduleformer-dense"/],
    [{ n_att_experts: 4 }, /unknown field "n_att_experts"/],
    [{ attn_pdrop: 0.5 }, /attn_pdrop/],
  ];
  for (const [fields, message] of cases) {
    t.throws(() => new DenseConfig(fields as DenseConfigInit), { instanceOf: ConfigError, message });
  }
});

test('parameters are counted as the golden files hold them', async (t) => {
  for (const name of goldenCases) {
    const config = await ModuleFormerConfig.fromFile(join(GOLDEN, name));
    await using file = await SafetensorsFile.open(join(GOLDEN, name, 'model.safetensors'));
    const size = (shape: readonly number[]) => shape.reduce((product, n) => product * n, 1);
    const held = [...file.entries.values()].reduce((sum, { shape }) => sum + size(shape), 0);
    const head = file.entries.has('score.weight') ? 'classification' : 'causal-lm';
    t.is(countParameters(config, head).total, held, name);
    if (head === 'causal-lm') {
      // Without the experts that a token leaves out and the rows of the embedding that it does not look up.
      const unused = [...file.entries].reduce((sum, [tensor, { shape }]) => {
        const [first = 0] = shape;
        const k = tensor.includes('.attn.') ? config.k_att : config.k_mlp;
        if (tensor === 'transformer.wte.weight') return sum + size(shape) - config.n_embd;
        return tensor.endsWith('experts.weight') ? sum + (size(shape) / first) * (first - k) : sum;
      }, 0);
      t.is(countParameters(config).active, held - unused, name);
    }
  }
});

test('the presets have the sizes that their names promise', (t) => {
  const millions = Object.fromEntries(
    PRESETS.map((name) => {
      const { total, active } = countParameters(presetConfig(name));
      return [name, [Math.round(total / 1e6), Math.round(active / 1e6)]];
    }),
  );
  t.deepEqual(millions, {
    'MoLM-350M-4B': [4143, 366],
    'MoLM-700M-4B': [4143, 668],
    'MoLM-700M-8B': [8182, 681],
    tiny: [1, 0],
    small: [9, 4],
    base: [139, 28],
    'Pythia-410M': [405, 354],
    'Pythia-1.4B': [1415, 1312],
  });
  // The numbers of parameters that the Pythia models are published with.
  t.is(countParameters(presetConfig('Pythia-410M')).total, 405_334_016);
  t.is(countParameters(presetConfig('Pythia-1.4B')).total, 1_414_647_808);
  t.true(presetConfig('MoLM-350M-4B').hasIdentityKeys);
  t.false(presetConfig('base').hasIdentityKeys);
  t.is(presetConfig('base').headSize, 64);
  for (const name of ['huge', 'toString', '__proto__']) {
    t.throws(() => presetConfig(name), {
      instanceOf: ConfigError,
      message: /unknown preset .*, expected one of MoLM-/,
    });
  }
});
