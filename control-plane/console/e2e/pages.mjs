// Every page, as it looks at the end of the day.
import { arrive, check, look, visit } from "./browser.mjs";

const PAGES = {
  clusters: "/clusters",
  cluster: "/clusters/2",
  "cluster-new": "/clusters/new",
  "cluster-edit": "/clusters/2/edit",
  placement: "/placement",
  hosts: "/hosts",
  bandwidth: "/bandwidth",
  rollouts: "/rollouts",
  tasks: "/tasks",
  jobs: "/jobs",
  users: "/users",
  tokens: "/tokens",
  audit: "/audit",
  "not-found": "/nowhere",
};
/** Pages that are reached from a list: the list, and the link's place in it. */
const BELOW = { host: "/hosts", task: "/tasks", job: "/jobs", user: "/users" };

export async function all(browsing) {
  const { page } = browsing;
  for (const [name, path] of Object.entries(PAGES)) {
    await settled(page, path);
    await look(browsing, name);
  }
  for (const [name, path] of Object.entries(BELOW)) {
    await arrive(page, path);
    await page.locator("main tbody th a").first().click();
    await page.waitForURL((url) => url.pathname.startsWith(`${path}/`));
    await page.locator(".loading").first().waitFor({ state: "detached" });
    await look(browsing, name);
  }
  check(true, `${Object.keys(PAGES).length + Object.keys(BELOW).length} pages`);
}

async function settled(page, path) {
  await visit(page, path);
  await page.waitForFunction((to) => location.pathname === to && document.querySelector("h1") && !document.querySelector(".loading"), path);
}

/** As on a telephone: nothing sticks out but what can be scrolled by itself. */
export async function narrow(browsing) {
  const { page } = browsing;
  await page.setViewportSize({ width: 390, height: 844 });
  for (const path of ["/clusters", "/bandwidth", "/clusters/2"]) {
    await settled(page, path);
    const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    if (over > 0) throw new Error(`${path} is ${over} pixels too wide at 390`);
  }
  await page.getByRole("button", { name: "Menu" }).click();
  await page.getByRole("link", { name: "Bandwidth" }).click();
  await page.getByRole("heading", { name: "Bandwidth", level: 1 }).waitFor();
  await look(browsing, "narrow");
  await page.setViewportSize({ width: 1360, height: 900 });
  check(true, "pages fit into 390 pixels");
}
