// Banner, navigation and the place for the page.
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { useMe, useSession } from "../session";
import { useAnnounce } from "./announce";

interface Entry {
  href: string;
  label: string;
  /** Also current for what lies below it. */
  below?: boolean;
  admin?: boolean;
}

const GROUPS: readonly { title: string; entries: readonly Entry[] }[] = [
  {
    title: "Fleet",
    entries: [
      { href: "/clusters", label: "Clusters", below: true },
      { href: "/placement", label: "Placement" },
      { href: "/hosts", label: "Hosts", below: true },
    ],
  },
  {
    title: "Distribution",
    entries: [
      { href: "/bandwidth", label: "Bandwidth" },
      { href: "/rollouts", label: "Rollouts" },
      { href: "/tasks", label: "Tasks", below: true },
      { href: "/jobs", label: "Preheat jobs", below: true },
    ],
  },
  {
    title: "Access",
    entries: [
      { href: "/users", label: "Users", below: true, admin: true },
      { href: "/tokens", label: "Tokens" },
      { href: "/audit", label: "Audit", admin: true },
    ],
  },
];

export function Shell({ path, children }: { path: string; children: ComponentChildren }) {
  const me = useMe();
  const { signOut } = useSession();
  const announce = useAnnounce();
  const [open, setOpen] = useState(false);
  const at = path === "/" ? "/clusters" : path;
  const current = ({ href, below }: Entry) => at === href || (below === true && at.startsWith(`${href}/`));
  const leave = () => void signOut().catch((error: Error) => announce(`Not signed out: ${error.message}`));
  return (
    <div class="shell">
      <a class="skip" href="#main">
        Skip to the page
      </a>
      <header class="banner">
        <a class="brand" href="/clusters">
          <img src="/icon.svg" alt="" width="28" height="28" />
          <span>Hawker</span>
        </a>
        <button type="button" class="button menu" aria-expanded={open} aria-controls="navigation" onClick={() => setOpen(!open)}>
          Menu
        </button>
      </header>
      <nav id="navigation" class={open ? "open" : undefined} aria-label="Main">
        {GROUPS.map(({ title, entries }) => {
          const shown = entries.filter((entry) => !entry.admin || me.role === "admin");
          const id = `nav-${title.toLowerCase()}`;
          return (
            <div key={title}>
              <h2 id={id}>{title}</h2>
              <ul aria-labelledby={id}>
                {shown.map((entry) => (
                  <li key={entry.href}>
                    <a href={entry.href} aria-current={current(entry) ? "page" : undefined} onClick={() => setOpen(false)}>
                      {entry.label}
                    </a>
                  </li>
                ))}
              </ul>
            </div>
          );
        })}
        <div class="account">
          <p>
            <span class="account-name">{me.name}</span>
            <span class="account-role">{me.role}</span>
          </p>
          <button type="button" class="button small" onClick={leave}>
            Sign out
          </button>
        </div>
      </nav>
      <main id="main" tabIndex={-1}>
        {children}
      </main>
    </div>
  );
}
