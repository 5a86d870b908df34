// The audit log: who changed what, when, from where, and whether it was allowed.
import { useState } from "preact/hooks";
import { get } from "../api/client";
import type { AuditEntry, Json, Page as Listed } from "../api/types";
import { detailInWords } from "../lib/audit";
import { plural } from "../lib/format";
import { useLive } from "../live";
import { TextField } from "../ui/form";
import { Empty, Page, Shown } from "../ui/page";
import { Badge, type Tone, When } from "../ui/parts";
import { Pager, Table } from "../ui/table";

const EVERY_MS = 5000;
const PER_PAGE = 50;

export function AuditPage() {
  const [filter, setFilter] = useState({ user: "", action: "", since: "", until: "" });
  const [page, setPage] = useState(1);
  const parameters = new URLSearchParams({ page: String(page), per_page: String(PER_PAGE) });
  for (const key of ["user", "action"] as const) if (filter[key].trim()) parameters.set(key, filter[key].trim());
  for (const key of ["since", "until"] as const) {
    const at = Date.parse(filter[key]);
    if (!Number.isNaN(at)) parameters.set(key, new Date(at).toISOString());
  }
  const path = `/audit?${parameters}`;
  const live = useLive(path, (signal) => get<Listed<AuditEntry>>(path, signal), EVERY_MS);
  const text = (key: keyof typeof filter) => ({
    value: filter[key],
    onValue: (value: string) => {
      setPage(1);
      setFilter({ ...filter, [key]: value });
    },
  });
  return (
    <Page title="Audit" intro="Every change that was made or tried over the API, the newest first.">
      <form class="filters" role="search" aria-label="Audit" onSubmit={(event) => event.preventDefault()}>
        <TextField label="User" type="search" {...text("user")} />
        <TextField label="Action" type="search" {...text("action")} />
        <TextField label="From" type="datetime-local" {...text("since")} />
        <TextField label="Until" type="datetime-local" {...text("until")} />
      </form>
      <Shown live={live} what="the audit log" route="GET /api/v1/audit">
        {({ items, total }) => (
          <>
            <p class="count" role="status">
              {plural(total, "entry", "entries")}
            </p>
            {items.length === 0 ? (
              <Empty>No such entry.</Empty>
            ) : (
              <Table
                caption="Audit log"
                rows={items}
                rowKey={(entry) => entry.id}
                columns={[
                  { head: "When", short: true, cell: (entry) => <When time={entry.at} /> },
                  { head: "Who", short: true, cell: (entry) => entry.user || "nobody" },
                  { head: "Did", short: true, cell: (entry) => <code>{entry.action}</code> },
                  { head: "To", cell: (entry) => entry.object || "–" },
                  { head: "Outcome", cell: (entry) => <Badge tone={toneOf(entry.outcome)}>{String(entry.outcome)}</Badge> },
                  { head: "From", cell: (entry) => <code>{entry.remote}</code> },
                  { head: "Detail", long: true, cell: (entry) => <Detail detail={entry.detail} /> },
                ]}
              />
            )}
            <Pager page={page} perPage={PER_PAGE} total={total} go={setPage} />
          </>
        )}
      </Shown>
    </Page>
  );
}

function toneOf(outcome: string | number): Tone {
  const status = Number(outcome);
  if (Number.isNaN(status)) return /^(ok|success|succeeded|allowed|done)$/i.test(String(outcome)) ? "good" : "bad";
  return status < 400 ? "good" : "bad";
}

function Detail({ detail }: { detail: Json }) {
  const words = detailInWords(detail);
  return words.length === 0 ? <>–</> : <ul>{words.map((line) => <li key={line}>{line}</li>)}</ul>;
}
