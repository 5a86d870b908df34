// Clusters: added, joined, edited by two people at once.
import { check, tabTo, until, visit } from "./browser.mjs";
import { lab } from "./lab.mjs";

const ID = 2;

export async function addByKeyboard(browsing) {
  const { page, failures } = browsing;
  await visit(page, "/clusters");
  await page.getByRole("heading", { name: "Clusters", level: 1 }).waitFor();
  const skip = await tabTo(browsing, "link", "Skip to the page");
  if (skip !== 1) failures.push(`the skip link comes after ${skip} presses of Tab`);
  await page.keyboard.press("Enter");
  await tabTo(browsing, "link", "Add cluster", { most: 5 });
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Add cluster" }).waitFor();
  const heading = await page.evaluate(() => document.activeElement?.textContent);
  check(heading === "Add cluster", "a new page has the focus on its heading");
  await tabTo(browsing, "textbox", "Name (required)");
  await page.keyboard.type("cluster-2");
  await tabTo(browsing, "textbox", "CIDRs");
  await page.keyboard.type("10.71.2.0/33");
  await tabTo(browsing, "textbox", "IDC");
  await page.keyboard.type("cluster-2");
  await page.keyboard.press("Enter");
  // Refused: the focus is where the mistake is, with the manager's words.
  const cidrs = page.getByRole("textbox", { name: "CIDRs" });
  await until("the focus is on the refused field", () => cidrs.evaluate((field) => field === document.activeElement && field.getAttribute("aria-invalid") === "true"));
  const why = await cidrs.evaluate((field) => document.getElementById(field.getAttribute("aria-describedby").split(" ")[0]).textContent);
  check(why.includes("10.71.2.0/33"), `a refusal stands at its field: ${why}`);
  await page.keyboard.press("Control+A");
  await page.keyboard.press("Delete");
  await tabTo(browsing, "button", "Add cluster");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "cluster-2", level: 1 }).waitFor();
  check(page.url().endsWith(`/clusters/${ID}`), "cluster B is there");
}

export async function values({ page }) {
  await visit(page, `/clusters/${ID}`);
  for (const id of ["scheduler-cluster-id", "seed-peer-cluster-id"]) {
    await until(id, async () => (await page.getByTestId(id).innerText()) === String(ID));
  }
  const text = await page.getByRole("region", { name: "Helm values", exact: true }).innerText();
  for (const line of [`schedulerClusterID: ${ID}`, `clusterID: ${ID}`, "idc: cluster-2", "grpcPort: 65003"]) {
    if (!text.includes(line)) throw new Error(`the Helm values lack \`${line}\`:\n${text}`);
  }
  await page.getByRole("button", { name: "Copy" }).first().click();
  await page.getByText("Helm values: copied.").waitFor();
  check(true, "both ids are shown, and the Helm values carry them and the IDC");
}

export async function placement({ page }) {
  await visit(page, "/placement");
  await page.getByLabel("IP address").fill("nowhere");
  await page.getByRole("button", { name: "Where would it go?" }).click();
  await page.getByText("is not an IP address").waitFor();
  await page.getByLabel("IP address").fill("10.71.2.11");
  await page.getByLabel("IDC").fill("cluster-2");
  await page.getByRole("button", { name: "Where would it go?" }).click();
  const answer = page.locator(".answer");
  await answer.getByText("because").waitFor();
  const words = (await answer.innerText()).split("\n").slice(0, 3).join(" ");
  check(words.includes("cluster-2") && /idc/i.test(words), `placement: ${words}`);
}

/** Without loading the page again. */
export async function nodeAppears({ page }) {
  await visit(page, `/clusters/${ID}`);
  await page.getByText("No node of this cluster is up.").waitFor();
  const { hostname, ip } = await lab("join");
  const row = page.getByRole("row").filter({ hasText: hostname });
  await row.getByText(ip).waitFor();
  const words = (await row.innerText()).replace(/\s+/g, " ");
  check(/idc/i.test(words) && /io_uring|portable/.test(words), `the node appeared: ${words}`);
  await page.getByText("working").first().waitFor();
  await visit(page, "/clusters");
  const listed = page.getByRole("row").filter({ hasText: "cluster-2" });
  await listed.getByText("working").waitFor();
  check((await listed.getByRole("cell").nth(1).innerText()) === "1", "the list of clusters counts it");
}

export async function changedMeanwhile({ page }) {
  await visit(page, `/clusters/${ID}/edit`);
  await page.getByLabel("Description").fill("mine");
  await page.getByLabel("Upload", { exact: true }).fill("900Mbps");
  await lab("patch", { path: `/api/v1/clusters/${ID}`, body: { bio: "theirs" } });
  await page.getByRole("button", { name: "Save" }).click();
  const notice = page.getByRole("region", { name: "Someone changed it meanwhile" });
  await notice.waitFor();
  const words = await notice.innerText();
  check(words.includes("theirs") && words.includes("mine"), "an edit over somebody else's is not saved, and both are shown");
  await page.getByRole("button", { name: "Save mine over theirs" }).click();
  await page.getByRole("heading", { name: "cluster-2", level: 1 }).waitFor();
  await page.getByText("shaper.uploadLimit").waitFor();
  check((await page.locator(".intro").innerText()) === "mine", "it is when one insists");
}
