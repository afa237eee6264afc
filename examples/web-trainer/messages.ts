/** What the main thread asks of the worker. */
export interface TrainingRequest {
  files: string[];
  runDir: string;
  steps: number;
}

/** What the worker tells, and what browsers get to see. */
export type Message =
  | { type: 'started'; backend: string }
  | { type: 'step'; step: number; steps: number; loss: number; tokensPerSecond: number }
  | { type: 'ended'; status: 'finished' | 'aborted'; step: number }
  | { type: 'failed'; reason: string };
