// One cluster: what it is, who is in it, and how another Kubernetes cluster joins it.
import { useLocation, useRoute } from "preact-iso";
import { call, get, getAll } from "../api/client";
import type { Cluster, Host, Json, Page as Listed, Scheduler } from "../api/types";
import { plural } from "../lib/format";
import { useLive } from "../live";
import { useMay } from "../session";
import { useAnnounce } from "../ui/announce";
import { Empty, Page, Section, Shown } from "../ui/page";
import { Ago, Badge, ConfirmButton, Copyable, Facts, When } from "../ui/parts";
import { Table } from "../ui/table";
import { ClusterState } from "./clusters";
import { HostTable } from "./hosts";

const EVERY_MS = 2000;
/** Hosts shown here; the list of hosts has all. */
const MAX_HOSTS = 100;

export function ClusterPage() {
  const { id } = useRoute().params;
  const cluster = useLive(`cluster-${id}`, (signal) => get<Cluster>(`/clusters/${id}`, signal), EVERY_MS);
  return (
    <Page title={cluster.data?.name ?? `Cluster ${id}`} actions={cluster.data && <Actions cluster={cluster.data} />} intro={cluster.data?.bio}>
      <Shown live={cluster} what={`cluster ${id}`}>
        {(data) => (
          <>
            <div class="cards">
              <Identity cluster={data} />
              <ScopesCard cluster={data} />
            </div>
            <Values cluster={data} />
            <Schedulers cluster={data} />
            <Hosts cluster={data} kind="seed-peers" title="Seed peers" none="No seed peer is up: the first nodes that ask fetch from the origin." />
            <Hosts cluster={data} kind="peers" title="Peers" none="No node of this cluster is up." />
          </>
        )}
      </Shown>
    </Page>
  );
}

function Actions({ cluster }: { cluster: Cluster }) {
  const { route } = useLocation();
  const announce = useAnnounce();
  const may = useMay("operator");
  if (!may) return null;
  const remove = async () => {
    await call(`/clusters/${cluster.id}`, { method: "DELETE" });
    announce(`Cluster ${cluster.name} was deleted.`);
    route("/clusters");
  };
  return (
    <>
      <a class="button primary" href={`/clusters/${cluster.id}/edit`}>
        Edit
      </a>
      <ConfirmButton label="Delete" question={`Delete cluster ${cluster.name}? Nodes that match it now will match another one.`} confirm={`Delete ${cluster.name}`} onConfirm={remove} />
    </>
  );
}

function Identity({ cluster }: { cluster: Cluster }) {
  return (
    <Section title="Cluster">
      <Facts
        facts={[
          ["State", <ClusterState cluster={cluster} />],
          ["Cluster ID", <code>{cluster.id}</code>],
          ["Scheduler cluster ID", <code data-testid="scheduler-cluster-id">{cluster.scheduler_cluster_id}</code>],
          ["Seed peer cluster ID", <code data-testid="seed-peer-cluster-id">{cluster.seed_peer_cluster_id}</code>],
          ["Default", cluster.is_default ? "yes: takes nodes that nothing matches" : "no"],
          ["Added", <When time={cluster.created_at} />],
          ["Changed", <When time={cluster.updated_at} />],
        ]}
      />
    </Section>
  );
}

function ScopesCard({ cluster: { scopes, config } }: { cluster: Cluster }) {
  const codes = (values: string[]) => (values.length === 0 ? "–" : values.map((value) => <code key={value} class="chip">{value}</code>));
  return (
    <Section title="Scopes and configuration">
      <Facts
        facts={[
          ["CIDRs", codes(scopes.cidrs)],
          ["IDC", codes(scopes.idc ? scopes.idc.split("|") : [])],
          ["Location", scopes.location ? <code class="chip">{scopes.location}</code> : "–"],
          ["Host names", codes(scopes.hostnames)],
          ...configFacts("", config),
        ]}
      />
    </Section>
  );
}

/** Every value of the configuration by its key, as the manager has it. */
function configFacts(prefix: string, value: Json): [string, string][] {
  if (value === null || typeof value !== "object") return [[prefix, String(value)]];
  if (Array.isArray(value)) return [[prefix, value.map((one) => (typeof one === "object" ? JSON.stringify(one) : String(one))).join(", ")]];
  return Object.entries(value).flatMap(([key, inner]) => configFacts(prefix ? `${prefix}.${key}` : key, inner));
}

function Values({ cluster }: { cluster: Cluster }) {
  const key = `values-${cluster.id}-${cluster.updated_at}`;
  const values = useLive(key, (signal) => get<string>(`/clusters/${cluster.id}/values`, signal), 0);
  const file = `charts-config-${cluster.name.replace(/[^A-Za-z0-9._-]+/g, "-")}.yaml`;
  return (
    <Section title="Helm values that join this cluster" note={<>Scheduler, seed peers and nodes of another Kubernetes cluster come to this one with them.</>} wide>
      <Shown live={values} what="the Helm values" route={`GET /api/v1/clusters/${cluster.id}/values`}>
        {(text) => (
          <>
            <Copyable text={text} label="Helm values" fileName={file} />
            <Copyable
              text={`helm install --wait --create-namespace --namespace cluster-${cluster.id} hawker deploy/charts/hawker -f ${file}`}
              label="Command that installs it"
            />
          </>
        )}
      </Shown>
    </Section>
  );
}

function Schedulers({ cluster }: { cluster: Cluster }) {
  const live = useLive(`schedulers-${cluster.id}`, (signal) => getAll<Listed<Scheduler>>("/schedulers", signal), EVERY_MS);
  return (
    <Section title="Schedulers" wide>
      <Shown live={live} what="the schedulers">
        {({ items }) => {
          const own = items.filter((one) => one.scheduler_cluster_id === cluster.scheduler_cluster_id);
          if (own.length === 0) return <Empty>No scheduler is up: nodes go on with the peers they know, and with the origin.</Empty>;
          return (
            <Table
              caption={`Schedulers of ${cluster.name}`}
              rows={own}
              rowKey={(one) => one.id}
              columns={[
                { head: "Host", short: true, cell: (one) => one.hostname },
                { head: "Address", cell: (one) => <code>{one.addr}</code> },
                { head: "Version", cell: (one) => one.version },
                { head: "Up for", short: true, cell: (one) => <Ago time={one.registered_at} /> },
              ]}
            />
          );
        }}
      </Shown>
    </Section>
  );
}

function Hosts({ cluster, kind, title, none }: { cluster: Cluster; kind: "peers" | "seed-peers"; title: string; none: string }) {
  const path = `/${kind}?cluster_id=${cluster.id}&per_page=${MAX_HOSTS}`;
  const live = useLive(path, (signal) => get<Listed<Host>>(path, signal), EVERY_MS);
  return (
    <Section title={title} wide>
      <Shown live={live} what={title.toLowerCase()}>
        {({ items, total }) =>
          items.length === 0 ? (
            <Empty>{none}</Empty>
          ) : (
            <>
              <HostTable caption={`${title} of ${cluster.name}`} hosts={items} />
              {total > items.length && (
                <p>
                  <Badge>{plural(total - items.length, "more host")}</Badge> <a href={`/hosts?cluster=${cluster.id}`}>All hosts of this cluster</a>
                </p>
              )}
            </>
          )
        }
      </Shown>
    </Section>
  );
}
