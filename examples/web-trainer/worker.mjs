// A worker thread does not inherit the TypeScript loader on Node 20. Compiled code needs none of this.
import { register } from 'tsx/esm/api';

register();
await import('./train.ts');
