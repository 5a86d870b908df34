// What the scenario asks of the lab: a line of JSON out, a line of JSON back. Without a lab at the other end there is no answer.
import { createInterface } from "node:readline";

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Has something done outside of the browser, and waits for it. */
export async function lab(deed, details = {}) {
  process.stdout.write(`@lab ${JSON.stringify({ deed, ...details })}\n`);
  const { value, done } = await answers.next();
  if (done) throw new Error(`the lab ended before it answered \`${deed}\``);
  return JSON.parse(value);
}

export function say(line) {
  process.stdout.write(`${line}\n`);
}

export function endOfQuestions() {
  process.stdin.destroy();
}
