// Markup in every text that people and nodes can set, and in every field that is only sent: shown as it is, never run.
import { arrive, check, inert, MARKUP, visit } from "./browser.mjs";
import { lab } from "./lab.mjs";

/** Pages with text fields. */
const FORMS = ["/clusters/new", "/clusters/2/edit", "/placement", "/hosts", "/jobs", "/users", "/tokens", "/audit"];

export async function everywhere(browsing) {
  const { page } = browsing;
  let filled = 0;
  for (const path of FORMS) {
    await arrive(page, path);
    for (const field of await page.locator("main input:not([type=checkbox]):not([type=datetime-local]), main textarea").all()) {
      await field.fill(MARKUP);
      filled += 1;
    }
    for (const button of await page.locator("main form button[type=submit]").all()) await button.click();
    await page.waitForTimeout(500);
    await inert(browsing, `${path}, sent`);
  }
  check(filled > 25, `${filled} text fields took markup`);
  await saved(browsing);
  await ofANode(browsing);
}

/** What the manager takes, it shows again. */
async function saved(browsing) {
  const { page } = browsing;
  await visit(page, "/clusters/new");
  await page.getByLabel("Name (required)").fill(MARKUP);
  await page.getByLabel("Description").fill(MARKUP);
  await page.getByLabel("IDC").fill(MARKUP.replaceAll("|", ""));
  await page.getByLabel("Location").fill(MARKUP);
  await page.getByRole("button", { name: "Add cluster" }).click();
  await page.waitForURL(/\/clusters\/\d+$/);
  await page.getByRole("heading", { name: MARKUP, exact: true }).waitFor();
  await page.getByRole("region", { name: "Helm values", exact: true }).waitFor();
  await inert(browsing, "a cluster named by markup");
  for (const path of ["/clusters", "/bandwidth", "/jobs", "/users", "/tokens", "/audit"]) {
    await arrive(page, path);
    await page.getByText(MARKUP).first().waitFor({ state: "attached" });
    await inert(browsing, path);
  }
  check(true, "a cluster named by markup is shown by that name everywhere");
  await visit(page, "/clusters");
  await page.getByRole("link", { name: MARKUP }).first().click();
  await page.getByRole("button", { name: "Delete" }).click();
  await page.getByRole("button", { name: `Delete ${MARKUP}` }).click();
  await page.getByRole("heading", { name: "Clusters", level: 1 }).waitFor();
}

/** What a node says of itself; its name is checked by the daemon, its IDC is any text. */
async function ofANode(browsing) {
  const { page } = browsing;
  await lab("move", { node: "a2", idc: MARKUP });
  await visit(page, "/hosts");
  const row = page.getByRole("row").filter({ hasText: "a2" });
  await row.getByText(MARKUP).waitFor();
  await row.getByRole("link").first().click();
  await page.getByRole("heading", { name: "a2", exact: true }).waitFor();
  await page.getByText(MARKUP).first().waitFor();
  await inert(browsing, "a node in an IDC named by markup");
  check(true, "a node whose IDC is markup is shown with it");
}
