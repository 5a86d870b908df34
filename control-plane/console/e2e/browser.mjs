// The browser of the scenario, and what holds on every page whatever is done there: nothing is loaded from elsewhere, nothing
// breaks the page's policy, no text becomes markup, nothing fails in the page's own code.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { say } from "./lab.mjs";

const PROGRAMS = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
/** Longest wait for anything on a page. */
export const PATIENCE_MS = 20_000;
const AXE = readFileSync(new URL("../node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
const AXE_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
/** Sets a mark if it ever runs. */
export const MARKUP = `<img src=x onerror="window.injected=1">`;

export async function open(base, artifacts) {
  const failures = [];
  const executablePath = PROGRAMS.find((program) => exists(program));
  if (!executablePath) throw new Error(`no browser: ${PROGRAMS.join(", ")}`);
  // Its own sandbox needs what a test run as root cannot give it.
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"] });
  const context = await browser.newContext({ baseURL: base, viewport: { width: 1360, height: 900 }, timezoneId: "UTC", locale: "en-GB" });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(base) && !url.startsWith("data:") && !url.startsWith("blob:")) failures.push(`asked for ${url}`);
  });
  page.on("pageerror", (error) => failures.push(`error in the page: ${error.stack ?? error.message}`));
  page.on("console", (message) => {
    // A refused request is logged by the browser; what is done about it is the scenario's to look at.
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) failures.push(`logged: ${message.text()}`);
  });
  return { browser, page, base, artifacts, failures, looked: [] };
}

function exists(file) {
  try {
    readFileSync(file).length;
    return true;
  } catch {
    return false;
  }
}

/** Screenshots of the page as it is, light and dark, and what axe finds in both. */
export async function look(browsing, name) {
  const { page, artifacts } = browsing;
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    // Charts are drawn anew in other colours.
    await page.waitForTimeout(150);
    await page.screenshot({ path: join(artifacts, `${name}-${colorScheme}.png`), fullPage: true });
    await accessible(browsing, `${name}, ${colorScheme}`);
  }
  await page.emulateMedia({ colorScheme: "light" });
  await inert(browsing, name);
}

async function accessible({ page, failures, looked }, name) {
  if (!(await page.evaluate(() => "axe" in window))) await page.evaluate(AXE);
  const { violations, passes } = await page.evaluate((values) => window.axe.run({ runOnly: { type: "tag", values } }), AXE_RULES);
  if (passes.length === 0) failures.push(`${name}: axe looked at nothing`);
  looked.push(passes.length);
  for (const { id, impact, nodes } of violations) {
    failures.push(`${name}: axe: ${id} (${impact}): ${nodes.slice(0, 3).map((node) => `${node.target} ${node.failureSummary}`).join("; ")}`);
  }
}

/** No text of anybody has become part of the page. */
export async function inert({ page, failures }, name) {
  const marks = await page.evaluate(() => ({ ran: "injected" in window, made: document.querySelectorAll('img[src="x"], script:not([src])').length }));
  if (marks.ran || marks.made > 0) failures.push(`${name}: text became markup: ${JSON.stringify(marks)}`);
}

/** Presses Tab until what has the focus is called this, as somebody without a mouse does; what has the focus must show it. */
export async function tabTo({ page, failures }, role, name, { key = "Tab", most = 80 } = {}) {
  const wanted = page.getByRole(role, { name, exact: true }).first();
  await wanted.waitFor();
  for (let presses = 1; presses <= most; presses += 1) {
    await page.keyboard.press(key);
    if (await wanted.evaluate((element) => element === document.activeElement)) {
      const outline = await wanted.evaluate((element) => getComputedStyle(element).outlineStyle);
      if (outline === "none") failures.push(`${role} ${name}: the focus does not show`);
      return presses;
    }
  }
  throw new Error(`${role} \`${name}\` cannot be reached by ${most} presses of ${key}`);
}

/** Goes to a page as a link would: without loading everything anew. The first page has to be loaded. */
export async function visit(page, path) {
  if (page.url() === "about:blank") return page.goto(path);
  return page.evaluate((to) => {
    history.pushState(null, "", to);
    dispatchEvent(new PopStateEvent("popstate"));
  }, path);
}

/** Goes to a page, which the manager must serve. */
export async function arrive(page, path) {
  await visit(page, path);
  await page.waitForFunction((to) => location.pathname === to && document.querySelector("h1") && !document.querySelector(".loading"), path);
  const lacks = await page.getByText("This manager does not serve").first().isVisible();
  check(!lacks, `${path} is served`);
}

/** Asks again until it is so. */
export async function until(what, probe, patienceMs = PATIENCE_MS) {
  const end = Date.now() + patienceMs;
  let last;
  for (;;) {
    try {
      last = await probe();
      if (last) return last;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) throw new Error(`${what}: not within ${patienceMs / 1000} s; last: ${last instanceof Error ? last.message : JSON.stringify(last)}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

export function check(holds, what) {
  if (!holds) throw new Error(what);
  say(`✓ ${what}`);
}
