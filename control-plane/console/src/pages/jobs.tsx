// Preheat jobs: what was brought to the nodes before it was asked for, and a form for more.
import { useLocation } from "preact-iso";
import { useState } from "preact/hooks";
import { call, get, getAll } from "../api/client";
import type { Cluster, Job, JobState, Page as Listed } from "../api/types";
import { EMPTY_PREHEAT, isOver, PREHEAT_FIELDS, preheatBody, subjectOf } from "../lib/jobs";
import { plural } from "../lib/format";
import { useLive } from "../live";
import { useMay } from "../session";
import { useAnnounce } from "../ui/announce";
import { ChoiceField, Form, SelectField, TextField } from "../ui/form";
import { Empty, Page, Section, Shown } from "../ui/page";
import { Ago, Badge, Bar, type Tone } from "../ui/parts";
import { Pager, Table } from "../ui/table";

const EVERY_MS = 2000;
const PER_PAGE = 50;
const TONES: Record<JobState, Tone> = { pending: "plain", running: "plain", succeeded: "good", failed: "bad", cancelled: "warn" };

export function JobsPage() {
  const [page, setPage] = useState(1);
  const path = `/jobs?type=preheat&page=${page}&per_page=${PER_PAGE}`;
  const live = useLive(path, (signal) => get<Listed<Job>>(path, signal), EVERY_MS);
  const may = useMay("operator");
  return (
    <Page title="Preheat jobs" intro="Brings an image or a file to nodes before anybody asks for it.">
      {may && <NewJob />}
      <Section title="Jobs" wide>
        <Shown live={live} what="the jobs" route="GET /api/v1/jobs">
          {({ items, total }) =>
            items.length === 0 ? (
              <Empty>Nothing was preheated yet.</Empty>
            ) : (
              <>
                <Table
                  caption="Preheat jobs, the newest first"
                  rows={items}
                  rowKey={(job) => job.id}
                  columns={[
                    { head: "Job", short: true, cell: (job) => <a href={`/jobs/${job.id}`}>{job.id}</a> },
                    { head: "What", long: true, cell: (job) => subjectOf(job) },
                    { head: "State", cell: (job) => <JobBadge job={job} /> },
                    { head: "Progress", cell: (job) => <JobNodes job={job} /> },
                    { head: "By", cell: (job) => job.created_by ?? "–" },
                    { head: "Asked for", short: true, cell: (job) => <Ago time={job.created_at} /> },
                  ]}
                />
                <Pager page={page} perPage={PER_PAGE} total={total} go={setPage} />
              </>
            )
          }
        </Shown>
      </Section>
    </Page>
  );
}

export function JobBadge({ job }: { job: Job }) {
  return <Badge tone={TONES[job.state] ?? "plain"}>{job.cancel_requested && !isOver(job.state) ? "being cancelled" : job.state}</Badge>;
}

function JobNodes({ job }: { job: Job }) {
  const { nodes_total: all, nodes_succeeded: done, state } = job;
  if (all === 0) return <>{isOver(state) ? "–" : "not begun"}</>;
  return (
    <>
      {done} of {plural(all, "node")} <Bar value={done} most={all} label="of the nodes" tone={TONES[state]} />
    </>
  );
}

function NewJob() {
  const { route } = useLocation();
  const announce = useAnnounce();
  const [form, setForm] = useState(EMPTY_PREHEAT);
  const clusters = useLive("clusters", (signal) => getAll<Listed<Cluster>>("/clusters", signal), 0);
  const create = async () => {
    const { body } = await call<Job>("/jobs", { method: "POST", body: preheatBody(form) });
    announce(`Job ${body.id} was created.`);
    route(`/jobs/${body.id}`);
  };
  return (
    <Section title="Preheat" wide>
      <Form label="Preheat" submit="Preheat" onSubmit={create} fields={PREHEAT_FIELDS}>
        {(errorOf) => (
          <>
            <TextField
              label="Image or URL"
              value={form.what}
              onValue={(what) => setForm({ ...form, what })}
              required
              code
              placeholder="ghcr.io/org/app:v1"
              error={errorOf("args.image") ?? errorOf("args.url")}
            />
            <div class="columns">
              <TextField
                label="Platforms"
                value={form.platforms}
                onValue={(platforms) => setForm({ ...form, platforms })}
                code
                placeholder="linux/amd64"
                hint="Of an image; empty is all."
                error={errorOf("args.platforms")}
              />
              <SelectField
                label="To which nodes"
                value={form.reach}
                onValue={(reach) => setForm({ ...form, reach: reach as typeof form.reach })}
                error={errorOf("args.scope")}
                options={[
                  { value: "seeds", label: "Seed peers" },
                  { value: "all", label: "All nodes" },
                  { value: "some", label: "Some nodes" },
                ]}
              />
              {form.reach === "some" && (
                <TextField
                  label="How many"
                  value={form.some}
                  onValue={(some) => setForm({ ...form, some })}
                  required
                  code
                  placeholder="20%"
                  hint="A number of nodes of each cluster, or a share."
                  error={errorOf("args.scope")}
                />
              )}
            </div>
            <ChoiceField
              label="In which clusters"
              hint="None chosen: in all."
              chosen={form.clusters}
              onChosen={(chosen) => setForm({ ...form, clusters: chosen })}
              options={(clusters.data?.items ?? []).map(({ id, name }) => ({ value: id, label: name }))}
              error={errorOf("args.cluster_ids")}
            />
          </>
        )}
      </Form>
    </Section>
  );
}
