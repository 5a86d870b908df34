// Personal access tokens: for scripts and tools, with no more rights than they need. Shown once, when they are made.
import { useState } from "preact/hooks";
import { call, getAll } from "../api/client";
import type { Page as Listed, Token } from "../api/types";
import { millis } from "../lib/format";
import { useLive } from "../live";
import { useAnnounce } from "../ui/announce";
import { ChoiceField, Form, SelectField, TextField } from "../ui/form";
import { Empty, Page, Section, Shown } from "../ui/page";
import { Ago, Badge, ConfirmButton, Copyable, When } from "../ui/parts";
import { Table } from "../ui/table";

const EVERY_MS = 10_000;
const SCOPES = ["clusters:read", "clusters:write", "hosts:read", "bandwidth:read", "tasks:read", "tasks:write", "jobs:read", "jobs:write", "users:read", "users:write", "tokens:read", "tokens:write", "audit:read"];
const LIFETIMES = [
  { value: "1", label: "1 day" },
  { value: "30", label: "30 days" },
  { value: "90", label: "90 days" },
  { value: "365", label: "1 year" },
];
const DAY_MS = 86_400_000;

export function TokensPage() {
  const live = useLive("tokens", (signal) => getAll<Listed<Token>>("/tokens", signal), EVERY_MS);
  const announce = useAnnounce();
  const revoke = async (token: Token) => {
    await call(`/tokens/${token.id}`, { method: "DELETE" });
    announce(`Token ${token.name} was revoked.`);
    live.refresh();
  };
  return (
    <Page title="Access tokens" intro="For scripts and the hawker tool. A token has the rights chosen here, and never more than its owner.">
      <NewToken refresh={live.refresh} />
      <Section title="Your tokens" wide>
        <Shown live={live} what="the tokens" route="GET /api/v1/tokens">
          {({ items }) =>
            items.length === 0 ? (
              <Empty>There are no tokens.</Empty>
            ) : (
              <Table
                caption="Access tokens"
                rows={items}
                rowKey={(token) => token.id}
                columns={[
                  { head: "Name", short: true, cell: (token) => token.name },
                  { head: "May", cell: (token) => (token.scopes.length === 0 ? "nothing" : token.scopes.map((scope) => <code class="chip" key={scope}>{scope}</code>)) },
                  { head: "Expires", short: true, cell: (token) => <Expiry token={token} /> },
                  { head: "Last used", short: true, cell: (token) => <Ago time={token.last_used_at} /> },
                  { head: "Made", short: true, cell: (token) => <When time={token.created_at} /> },
                  {
                    head: "Revoke",
                    cell: (token) => <ConfirmButton small label="Revoke" question={`Revoke token ${token.name}? What uses it stops working at once.`} confirm={`Revoke ${token.name}`} onConfirm={() => revoke(token)} />,
                  },
                ]}
              />
            )
          }
        </Shown>
      </Section>
    </Page>
  );
}

function Expiry({ token: { expires_at: at } }: { token: Token }) {
  if (at === null) return <>never</>;
  const over = millis(at) < Date.now();
  return (
    <>
      {over && <Badge tone="bad">expired</Badge>} <Ago time={at} />
    </>
  );
}

function NewToken({ refresh }: { refresh: () => void }) {
  const [name, setName] = useState("");
  const [scopes, setScopes] = useState<string[]>([]);
  const [days, setDays] = useState("30");
  const [made, setMade] = useState<{ name: string; token: string } | null>(null);
  const create = async () => {
    const expires_at = new Date(Date.now() + Number(days) * DAY_MS).toISOString();
    const { body } = await call<Token & { token: string }>("/tokens", { method: "POST", body: { name, scopes, expires_at } });
    setMade({ name: body.name, token: body.token });
    setName("");
    setScopes([]);
    refresh();
  };
  return (
    <Section title="Make a token" wide>
      <Form label="Make a token" submit="Make token" onSubmit={create} fields={["name", "scopes", "expires_at"]}>
        {(errorOf) => (
          <>
            <div class="columns">
              <TextField label="Name" value={name} onValue={setName} required hint="What it is for." error={errorOf("name")} />
              <SelectField label="Lives" value={days} onValue={setDays} options={LIFETIMES} error={errorOf("expires_at")} />
            </div>
            <ChoiceField label="Rights" hint="None chosen: it may do nothing." options={SCOPES.map((value) => ({ value, label: value }))} chosen={scopes} onChosen={setScopes} error={errorOf("scopes")} />
          </>
        )}
      </Form>
      {made && (
        <div class="notice good" role="status">
          <p>Token {made.name} is shown this one time: copy it now.</p>
          <Copyable text={made.token} label={`Token ${made.name}`} />
        </div>
      )}
    </Section>
  );
}
