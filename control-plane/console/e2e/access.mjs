// Signing in and out, and who may do what.
import { arrive, check, look, tabTo, visit } from "./browser.mjs";

export async function refused({ page }) {
  await visit(page, "/hosts");
  await page.getByRole("heading", { name: "Sign in to Hawker" }).waitFor();
  await page.getByLabel("Name").fill("root");
  await page.getByLabel("Password").fill("not the password");
  await page.getByRole("button", { name: "Sign in", exact: true }).click();
  const alert = page.getByRole("alert");
  await alert.waitFor();
  check(/wrong|unknown/i.test(await alert.innerText()), `a wrong password is refused: ${(await alert.innerText()).trim()}`);
}

/** Without a mouse; the page that was asked for comes afterwards. */
export async function signIn(browsing, name, password) {
  const { page } = browsing;
  await look(browsing, "sign-in");
  await page.goto("/clusters");
  await tabTo(browsing, "textbox", "Name (required)");
  await page.keyboard.type(name);
  await page.keyboard.press("Tab");
  await page.keyboard.type(password);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Clusters", level: 1 }).waitFor();
  const stored = await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie.length]);
  check(stored.every((length) => length === 0), "no script can see anything of the session");
}

export async function people(browsing) {
  const { page } = browsing;
  for (const path of ["/users", "/tokens", "/audit"]) await arrive(page, path);
  await visit(page, "/users");
  await page.getByLabel("Name").fill("ada");
  await page.getByLabel("Password").fill("a password of ada's own");
  await page.getByLabel("Role").selectOption("viewer");
  await page.getByRole("button", { name: "Add user" }).click();
  await page.getByRole("row").filter({ hasText: "ada" }).getByText("viewer").waitFor();
  await visit(page, "/tokens");
  await page.getByLabel("Name").fill("ci");
  await page.getByLabel("clusters:read").check();
  await page.getByRole("button", { name: "Make token" }).click();
  const token = (await page.getByRole("region", { name: "Token ci" }).innerText()).trim();
  check((await ask(token, "/api/v1/clusters")) === 200, "a token made here works");
  check((await ask(token, "/api/v1/users")) === 403, "and only for what it was made for");
  await page.getByRole("row").filter({ hasText: "clusters:read" }).getByRole("button", { name: "Revoke" }).click();
  await page.getByRole("button", { name: "Revoke ci" }).click();
  await page.getByRole("row").filter({ hasText: "clusters:read" }).waitFor({ state: "detached" });
  check((await ask(token, "/api/v1/clusters")) === 401, "revoked, it does not any more");
  await visit(page, "/audit");
  const rows = page.getByRole("table").getByRole("row");
  await rows.nth(3).waitFor();
  const log = await page.getByRole("table").innerText();
  check(/cluster/.test(log) && /user/.test(log) && /token/.test(log), "the audit log has the cluster, the user and the token");
}

/** As a script would: without the browser's cookie. */
async function ask(token, path) {
  const { CONSOLE_URL } = process.env;
  return (await fetch(CONSOLE_URL + path, { headers: { authorization: `Bearer ${token}` } })).status;
}

export async function signOut({ page }) {
  await visit(page, "/clusters");
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByText("You are signed out.").waitFor();
  const answer = await page.evaluate(async () => (await fetch("/api/v1/clusters")).status);
  check(answer === 401, "the session is over at the manager too");
}
