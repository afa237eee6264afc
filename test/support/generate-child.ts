// Generates with a tiny model in a process of its own: tsx generate-child.ts TOKENS. With MODULEFORMER_PROFILE=1 the
// calls of every operation follow on stderr.
import { ModuleFormerConfig } from '../../lib/model/config.js';
import { ModuleFormerForCausalLM } from '../../lib/model/moduleformer.js';
import { testDevice } from './device.js';

const config = new ModuleFormerConfig({
  ...{ vocab_size: 40, n_embd: 32, n_layer: 2, n_head: 1, att_hidden: 32, ffd_hidden: 32, gating_size: 8 },
  ...{ n_att_experts: 4, n_mlp_experts: 4, initializer_range: 0.5 },
});
using model = new ModuleFormerForCausalLM(config, { device: testDevice, seed: 3 });
const options = { inputIds: [[3, 1, 4]], maxNewTokens: Number(process.argv[2]), stopTokens: [] };
process.stdout.write(JSON.stringify(await model.generate({ ...options, temperature: 0 })));
