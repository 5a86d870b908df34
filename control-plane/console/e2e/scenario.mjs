// A platform engineer's first day with the console: from signing in to a preheated image. Run by `cargo xtask test`, which
// answers what is asked of the lab.
import { open } from "./browser.mjs";
import { endOfQuestions, say } from "./lab.mjs";
import * as access from "./access.mjs";
import * as bandwidth from "./bandwidth.mjs";
import * as clusters from "./clusters.mjs";
import * as content from "./content.mjs";
import * as injection from "./injection.mjs";
import * as pages from "./pages.mjs";

const { CONSOLE_URL, CONSOLE_PASSWORD, CONSOLE_ARTIFACTS } = process.env;
if (!CONSOLE_URL || !CONSOLE_PASSWORD || !CONSOLE_ARTIFACTS) throw new Error("cargo xtask test runs this");

const STEPS = [
  ["what is not signed in sees nothing", access.refused],
  ["sign in by keyboard", (browsing) => access.signIn(browsing, "root", CONSOLE_PASSWORD)],
  ["add cluster B by keyboard", clusters.addByKeyboard],
  ["ids and Helm values of cluster B", clusters.values],
  ["which cluster would this node get", clusters.placement],
  ["a node of IDC cluster-2 appears in cluster B", clusters.nodeAppears],
  ["somebody else changed it meanwhile", clusters.changedMeanwhile],
  ["an image's bytes on the bandwidth page", bandwidth.pulls],
  ["tasks and where they lie", content.tasks],
  ["the image's rollout", content.rollout],
  ["preheat with progress", content.preheat],
  ["users, tokens, audit", access.people],
  ["markup in every text field", injection.everywhere],
  ["every page, light and dark, by axe", pages.all],
  ["a narrow window", pages.narrow],
  ["sign out", access.signOut],
];

const browsing = await open(CONSOLE_URL, CONSOLE_ARTIFACTS);
let failed = null;
for (const [name, step] of STEPS) {
  const started = Date.now();
  try {
    await step(browsing);
    if (browsing.failures.length > 0) throw new Error(browsing.failures.join("\n"));
    say(`ok ${name} (${((Date.now() - started) / 1000).toFixed(1)} s)`);
  } catch (error) {
    failed = `${name}: ${error.stack ?? error.message}`;
    await browsing.page.screenshot({ path: `${CONSOLE_ARTIFACTS}/failed.png`, fullPage: true }).catch(() => {});
    break;
  }
}
await browsing.browser.close();
endOfQuestions();
if (failed) {
  say(`failed: ${failed}`);
  process.exitCode = 1;
} else {
  const looked = browsing.looked;
  say(`axe: ${looked.length} page states, ${Math.min(...looked)} to ${Math.max(...looked)} rules passed each, none broken; screenshots in ${CONSOLE_ARTIFACTS}`);
}
