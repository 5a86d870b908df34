// Content: tasks, rollouts, preheat jobs.
import { arrive, check, until, visit } from "./browser.mjs";
import { lab, say } from "./lab.mjs";

export async function tasks({ page }) {
  await arrive(page, "/tasks");
  const { layer } = await lab("image", { name: "placed", mib: 9 });
  await lab("pull", { node: "a1", image: "placed" });
  await lab("pull", { node: "a2", image: "placed" });
  await visit(page, "/tasks");
  const row = page.getByRole("row").filter({ hasText: layer.slice(0, 19) });
  await row.getByText("2 nodes").waitFor();
  await row.getByRole("link").first().click();
  const table = page.getByRole("table", { name: /with this task/ });
  await table.getByText("a2").waitFor();
  check((await table.getByRole("row").count()) === 3, "a layer lies on the two nodes that pulled it");
}

export async function rollout({ page }) {
  await arrive(page, "/rollouts");
  const card = page.getByRole("region", { name: /console/ }).first();
  await card.getByText("2 of 2 nodes").waitFor();
  check(/done/.test(await card.innerText()), "the rollout of the image pulled before is done on 2 of 2 nodes");
}

export async function preheat({ page }) {
  await arrive(page, "/jobs");
  const { reference, bytes } = await lab("image", { name: "preheated", mib: 30 });
  await page.getByLabel("Image or URL").fill(reference);
  await page.getByLabel("To which nodes").selectOption("all");
  await page.getByLabel("cluster-1").check();
  await page.getByRole("button", { name: "Preheat" }).click();
  await page.getByRole("heading", { name: /Preheat job/ }).waitFor();
  const seen = new Set();
  const line = page.locator(".rollout-line");
  await until("the job succeeds", async () => {
    const words = (await line.innerText()).replace(/\s+/g, " ");
    seen.add(words);
    if (/failed|cancelled/.test(words)) throw new Error(words);
    return /succeeded/.test(words);
  }, 60_000);
  say(`preheat of ${bytes} bytes: ${[...seen].join(" → ")}`);
  check(/2 of 2 nodes/.test([...seen].at(-1)), "both nodes of cluster A have it");
  await visit(page, "/jobs");
  await page.getByRole("row").filter({ hasText: reference }).getByText("succeeded").waitFor();
}
