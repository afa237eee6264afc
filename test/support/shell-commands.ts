import { Command } from 'commander';
import { existsSync, readdirSync, readFileSync } from 'node:fs';

/** The commands of a shell block, each as its words: comments, continued lines and quotes as in the shell. */
export function shellCommands(source: string): string[][] {
  const lines = source.replaceAll(/\\\n\s*/g, ' ').split('\n');
  return lines.flatMap((line) => {
    const words: string[] = [];
    const commands = [words];
    for (const [word] of line.matchAll(/(?:[^\s"'#]|"[^"]*"|'[^']*'|(?<=\S)#)+|#.*/g)) {
      if (word.startsWith('#')) break;
      if (word === '&&' || word === '|') commands.push([]);
      else commands.at(-1)?.push(word.replaceAll(/"([^"]*)"|'([^']*)'/g, '$1$2'));
    }
    return commands.filter((command) => command.length > 0);
  });
}

/** The command line of this package, without what its commands do. */
async function program(): Promise<Command> {
  const root = new Command('moduleformer').version('0');
  for (const file of readdirSync('lib/cli').filter((name) => name.endsWith('-command.ts'))) {
    const module = (await import(`../../lib/cli/${file.slice(0, -3)}.js`)) as Record<string, unknown>;
    for (const [name, add] of Object.entries(module)) {
      if (/^add\w+$/.test(name)) (add as (program: Command) => void)(root);
    }
  }
  const prepare = (command: Command): void => {
    command.exitOverride().configureOutput({ writeErr: () => undefined, writeOut: () => undefined });
    if (command.commands.length === 0) command.action(() => undefined);
    for (const each of command.commands) prepare(each);
  };
  prepare(root);
  return root;
}

/** Why the command line does not take these arguments; undefined when it does. */
async function refusal(args: readonly string[]): Promise<string | undefined> {
  try {
    await (await program()).parseAsync([...args], { from: 'user' });
    return undefined;
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    return code === 'commander.helpDisplayed' || code === 'commander.version' ? undefined : message;
  }
}

function scripts(): Record<string, string> {
  return (JSON.parse(readFileSync('package.json', 'utf8')) as { scripts: Record<string, string> }).scripts;
}

/** Arguments of scripts that name something in the repository. */
function unknownArgument(script: string, args: readonly string[]): string | undefined {
  const folder = { bench: 'bench', abilities: 'bench/abilities' }[script];
  if (folder === undefined) return undefined;
  const known = [...readdirSync(folder).map((name) => name.replace(/\.ts$/, '')), 'compare', 'report'];
  const firstFlag = args.findIndex((arg) => arg.startsWith('-'));
  const sections = firstFlag < 0 ? args : args.slice(0, firstFlag);
  return sections.find((name) => /^[a-z-]+$/.test(name) && !known.includes(name));
}

/** What is wrong with a command that a document shows; undefined for those that it knows nothing of, such as `git`. */
export async function problemOf(words: readonly string[]): Promise<string | undefined> {
  const [command, ...args] = words.filter((word, i) => !(i === 0 && /^[A-Z_]+=/.test(word)));
  if (command === 'moduleformer') return refusal(args);
  if (command === 'npx') {
    const [tool, file = ''] = args;
    if (tool === 'moduleformer') return refusal(args.slice(1));
    if (tool === 'tsx' || tool === 'ava') return existsSync(file) ? undefined : `there is no ${file}`;
    return undefined;
  }
  if (command !== 'npm' || args[0] !== 'run') return undefined;
  const [script = '', ...rest] = args.slice(1).filter((word) => word !== '--silent' && word !== '--');
  if (!(script in scripts())) return `package.json has no script '${script}'`;
  if (script === 'moduleformer') return rest.length > 0 ? refusal(rest) : undefined;
  const unknown = unknownArgument(script, rest);
  return unknown === undefined ? undefined : `npm run ${script} knows no '${unknown}'`;
}
