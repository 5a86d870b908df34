// Nodes: who is in touch, where it belongs and why, which engine and shaper it runs and why.
import { useLocation, useRoute } from "preact-iso";
import { useState } from "preact/hooks";
import { ApiError, get, getAll } from "../api/client";
import type { Cluster, Host, Page as Listed } from "../api/types";
import { plural } from "../lib/format";
import { useLive } from "../live";
import { SelectField, TextField } from "../ui/form";
import { Empty, Page, Section, Shown } from "../ui/page";
import { Ago, Badge, Facts } from "../ui/parts";
import { Pager, Table } from "../ui/table";

const EVERY_MS = 2000;
const PER_PAGE = 50;

export function HostsPage() {
  const { query } = useLocation();
  const [kind, setKind] = useState<"peers" | "seed-peers">(query.kind === "seed-peers" ? "seed-peers" : "peers");
  const [cluster, setCluster] = useState(query.cluster ?? "");
  const [text, setText] = useState("");
  const [page, setPage] = useState(1);
  const clusters = useLive("clusters", (signal) => getAll<Listed<Cluster>>("/clusters", signal), 0);
  const parameters = new URLSearchParams({ page: String(page), per_page: String(PER_PAGE) });
  if (cluster) parameters.set("cluster_id", cluster);
  if (text.trim()) parameters.set("q", text.trim());
  const path = `/${kind}?${parameters}`;
  const live = useLive(path, (signal) => get<Listed<Host>>(path, signal), EVERY_MS);
  const from = <V,>(set: (value: V) => void) => (value: V) => {
    setPage(1);
    set(value);
  };
  return (
    <Page title="Hosts" intro="Nodes that are in touch with the manager now.">
      <form class="filters" role="search" aria-label="Hosts" onSubmit={(event) => event.preventDefault()}>
        <SelectField label="Kind" value={kind} onValue={from((value: string) => setKind(value as typeof kind))} options={[{ value: "peers", label: "Peers" }, { value: "seed-peers", label: "Seed peers" }]} />
        <SelectField label="Cluster" value={cluster} onValue={from(setCluster)} options={[{ value: "", label: "All" }, ...(clusters.data?.items ?? []).map(({ id, name }) => ({ value: String(id), label: name }))]} />
        <TextField label="Name or address" type="search" value={text} onValue={from(setText)} />
      </form>
      <Shown live={live} what="the hosts">
        {({ items, total }) => (
          <>
            <p class="count" role="status">
              {plural(total, "host")}
            </p>
            {items.length === 0 ? <Empty>No such host is in touch with the manager.</Empty> : <HostTable caption="Hosts" hosts={items} cluster />}
            <Pager page={page} perPage={PER_PAGE} total={total} go={setPage} />
          </>
        )}
      </Shown>
    </Page>
  );
}

export function HostTable({ caption, hosts, cluster }: { caption: string; hosts: Host[]; cluster?: boolean }) {
  const place = {
    head: "Cluster and why",
    cell: (host: Host) => (
      <>
        <a href={`/clusters/${host.cluster_id}`}>{host.cluster_name}</a> {host.fell_back && <Badge tone="warn">fell back</Badge>}
        <span class="why">{host.reason}</span>
      </>
    ),
  };
  const why = { head: "In this cluster because", cell: (host: Host) => <>{host.fell_back && <Badge tone="warn">fell back</Badge>} {host.reason}</> };
  return (
    <Table
      caption={caption}
      rows={hosts}
      rowKey={(host) => host.id}
      columns={[
        { head: "Host", short: true, cell: (host) => <a href={`/hosts/${encodeURIComponent(host.id)}`}>{host.hostname}</a> },
        { head: "Address", cell: (host) => <code>{host.ip}</code> },
        cluster ? place : why,
        { head: "IDC", short: true, cell: (host) => host.idc || "–" },
        { head: "Version", cell: (host) => host.version },
        { head: "Engine", cell: (host) => <Engine host={host} /> },
        { head: "Shaper", cell: (host) => <ShaperOf host={host} /> },
        { head: "In touch since", short: true, cell: (host) => <Ago time={host.registered_at} /> },
      ]}
    />
  );
}

function Engine({ host }: { host: Host }) {
  return (
    <>
      <Badge tone={host.engine === "io_uring" ? "good" : "plain"}>{host.engine || "not told"}</Badge>
      {host.engine_reason && <span class="why">{host.engine_reason}</span>}
    </>
  );
}

function ShaperOf({ host }: { host: Host }) {
  const inKernel = host.shaper !== "" && host.shaper !== "user" && host.shaper !== "off";
  return (
    <>
      <Badge tone={inKernel ? "good" : "plain"}>{host.shaper || "not told"}</Badge>
      {host.shaper_reason && <span class="why">{host.shaper_reason}</span>}
    </>
  );
}

export function HostPage() {
  const { id = "" } = useRoute().params;
  const wanted = decodeURIComponent(id);
  const live = useLive(`host-${id}`, (signal) => find(wanted, signal), EVERY_MS);
  return (
    <Page title={live.data?.hostname ?? "Host"}>
      <Shown live={live} what="the host">
        {(host) => <HostFacts host={host} />}
      </Shown>
    </Page>
  );
}

/** There is no route for one host: it is looked for in the lists. */
async function find(id: string, signal: AbortSignal): Promise<Host> {
  for (const kind of ["peers", "seed-peers"]) {
    const { items } = await getAll<Listed<Host>>(`/${kind}?q=${encodeURIComponent(id)}`, signal);
    const found = items.find((host) => host.id === id);
    if (found) return found;
  }
  throw new ApiError(404, "it is not in touch with the manager");
}

function HostFacts({ host }: { host: Host }) {
  return (
    <div class="cards">
      <Section title="Node">
        <Facts
          facts={[
            ["Kind", host.kind === "seed" ? "seed peer" : "peer"],
            ["Address", <code>{host.ip}</code>],
            ["Pieces at port", <code>{host.piece_port}</code>],
            ["IDC", host.idc || "–"],
            ["Location", host.location || "–"],
            ["Version", host.version],
            ["In touch since", <Ago time={host.registered_at} />],
            ["Id", <code>{host.id}</code>],
          ]}
        />
      </Section>
      <Section title="Why it is as it is">
        <Facts
          facts={[
            ["Cluster", <a href={`/clusters/${host.cluster_id}`}>{host.cluster_name}</a>],
            ["because", host.reason],
            ["Engine", <Engine host={host} />],
            ["Shaper", <ShaperOf host={host} />],
          ]}
        />
        {host.fell_back && (
          <p class="notice warn">
            Its scopes match cluster {host.matched_cluster_id}, which has no scheduler; it accepted the default cluster.
          </p>
        )}
      </Section>
    </div>
  );
}
