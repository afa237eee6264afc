export type JsonValue = null | boolean | number | string | JsonValue[] | JsonObject;
export interface JsonObject {
  [key: string]: JsonValue;
}

/** Deep enough for any config or header, shallow enough never to exhaust the stack. */
const MAX_DEPTH = 64;

const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const WHITESPACE = /[ \t\n\r]*/y;
const LITERALS: readonly (readonly [string, JsonValue])[] = [
  ['true', true],
  ['false', false],
  ['null', null],
];

/**
 * Parses JSON that may come from anywhere. Unlike `JSON.parse`, a key that occurs twice in an object is an error,
 * and objects have no prototype, so that a key named `__proto__` is a key like any other.
 *
 * @throws {SyntaxError} that says what was expected and at which character.
 */
export function parseStrictJson(text: string): JsonValue {
  return new Parser(text).parseDocument();
}

/** Whether a parsed value is an object (and neither null nor an array). */
export function isJsonObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

class Parser {
  readonly #text: string;
  #position = 0;
  #depth = 0;

  constructor(text: string) {
    this.#text = text;
  }

  parseDocument(): JsonValue {
    const value = this.#value();
    this.#skip();
    if (this.#position < this.#text.length) this.#fail('the end');
    return value;
  }

  #value(): JsonValue {
    this.#skip();
    const first = this.#text[this.#position];
    if (first === '{') return this.#nested(() => this.#object());
    if (first === '[') return this.#nested(() => this.#array());
    if (first === '"') return this.#string();
    return this.#scalar();
  }

  #nested<T>(parse: () => T): T {
    if (++this.#depth > MAX_DEPTH) this.#fail(`at most ${MAX_DEPTH} levels of nesting`);
    this.#position++;
    const value = parse();
    this.#depth--;
    return value;
  }

  #object(): JsonObject {
    const object = Object.create(null) as JsonObject;
    if (this.#take('}')) return object;
    do {
      this.#skip();
      const start = this.#position;
      if (this.#text[start] !== '"') this.#fail('a key in double quotes');
      const key = this.#string();
      if (key in object) {
        this.#position = start;
        this.#fail(`every key once, but ${JSON.stringify(key)} occurs again`);
      }
      if (!this.#take(':')) this.#fail("':'");
      object[key] = this.#value();
    } while (this.#take(','));
    if (!this.#take('}')) this.#fail("',' or '}'");
    return object;
  }

  #array(): JsonValue[] {
    const array: JsonValue[] = [];
    if (this.#take(']')) return array;
    do array.push(this.#value());
    while (this.#take(','));
    if (!this.#take(']')) this.#fail("',' or ']'");
    return array;
  }

  #string(): string {
    let end = this.#position + 1;
    while (end < this.#text.length && this.#text[end] !== '"') end += this.#text[end] === '\\' ? 2 : 1;
    const token = this.#text.slice(this.#position, end + 1);
    try {
      const value = JSON.parse(token) as string;
      this.#position = end + 1;
      return value;
    } catch {
      return this.#fail('a closed string without control characters or unknown escapes');
    }
  }

  #scalar(): JsonValue {
    for (const [word, value] of LITERALS) {
      if (this.#text.startsWith(word, this.#position)) {
        this.#position += word.length;
        return value;
      }
    }
    NUMBER.lastIndex = this.#position;
    const match = NUMBER.exec(this.#text);
    if (match === null) return this.#fail('a value');
    this.#position += match[0].length;
    return Number(match[0]);
  }

  #take(character: string): boolean {
    this.#skip();
    if (this.#text[this.#position] !== character) return false;
    this.#position++;
    return true;
  }

  #skip(): void {
    WHITESPACE.lastIndex = this.#position;
    WHITESPACE.test(this.#text);
    this.#position = WHITESPACE.lastIndex;
  }

  #fail(expected: string): never {
    throw new SyntaxError(`not valid JSON: expected ${expected} at character ${this.#position}`);
  }
}
