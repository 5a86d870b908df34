// Adding and editing a cluster. What somebody else changed meanwhile is shown, never overwritten.
import { useLocation, useRoute } from "preact-iso";
import { useEffect, useState } from "preact/hooks";
import { ApiError, call } from "../api/client";
import type { Cluster } from "../api/types";
import { type ClusterForm, EMPTY_FORM, FORM_FIELDS, toBody, toForm } from "../lib/scopes";
import { useAnnounce } from "../ui/announce";
import { CheckField, Form, TextField } from "../ui/form";
import { Failure, Page } from "../ui/page";

export function ClusterNewPage() {
  const { route } = useLocation();
  const announce = useAnnounce();
  const [form, setForm] = useState<ClusterForm>(EMPTY_FORM);
  const create = async () => {
    const { is_default, ...body } = toBody(form, {});
    const { body: cluster } = await call<Cluster>("/clusters", { method: "POST", body: is_default ? { ...body, is_default } : body });
    announce(`Cluster ${cluster.name} was added.`);
    route(`/clusters/${cluster.id}`);
  };
  return (
    <Page title="Add cluster" intro="Nodes that match a scope join it when they start, and at once if they run already.">
      <ClusterFields form={form} setForm={setForm} submit="Add cluster" onSubmit={create} back="/clusters" />
    </Page>
  );
}

interface Loaded {
  cluster: Cluster;
  etag: string | null;
}

export function ClusterEditPage() {
  const { id } = useRoute().params;
  const { route } = useLocation();
  const announce = useAnnounce();
  const [loaded, setLoaded] = useState<Loaded | null>(null);
  const [form, setForm] = useState<ClusterForm>(EMPTY_FORM);
  const [error, setError] = useState<ApiError | null>(null);
  /** The cluster as somebody else left it while it was edited here. */
  const [theirs, setTheirs] = useState<Loaded | null>(null);

  const load = async (): Promise<Loaded> => {
    const { body, etag } = await call<Cluster>(`/clusters/${id}`);
    return { cluster: body, etag };
  };
  const start = (now: Loaded) => {
    setLoaded(now);
    setForm(toForm(now.cluster));
    setTheirs(null);
  };
  useEffect(() => {
    load().then(start, setError);
  }, [id]);

  const save = async () => {
    if (!loaded) return;
    try {
      const { is_default, ...body } = toBody(form, loaded.cluster.config);
      const wanted = is_default === loaded.cluster.is_default ? body : { ...body, is_default };
      await call<Cluster>(`/clusters/${id}`, { method: "PATCH", body: wanted, etag: (theirs ?? loaded).etag });
      announce(`Cluster ${form.name} was changed.`);
      route(`/clusters/${id}`);
    } catch (failure) {
      if (!(failure instanceof ApiError) || failure.status !== 412) throw failure;
      setTheirs(await load());
      throw new ApiError(412, "Not saved: someone changed this cluster meanwhile.");
    }
  };
  if (error) {
    return (
      <Page title="Edit cluster">
        <Failure error={error} what={`cluster ${id}`} />
      </Page>
    );
  }
  if (!loaded) return <p class="loading">Loading cluster {id} …</p>;
  return (
    <Page title={`Edit ${loaded.cluster.name}`}>
      {theirs && <Meanwhile mine={form} theirs={theirs} take={() => start(theirs)} />}
      <ClusterFields form={form} setForm={setForm} submit={theirs ? "Save mine over theirs" : "Save"} onSubmit={save} back={`/clusters/${id}`} />
    </Page>
  );
}

const NAMES: Record<keyof ClusterForm, string> = {
  name: "Name",
  bio: "Description",
  is_default: "Default cluster",
  cidrs: "CIDRs",
  idc: "IDC",
  location: "Location",
  hostnames: "Host names",
  uploadLimit: "Upload limit",
  perPeerLimit: "Limit per peer",
  downloadLimit: "Download limit",
  originLimit: "Origin limit",
  yield: "Give way",
  currency: "Currency",
  originPerGB: "Price from origins",
  crossZonePerGB: "Price between zones",
};

/** What differs between this form and what is saved now, field by field. */
function Meanwhile({ mine, theirs, take }: { mine: ClusterForm; theirs: Loaded; take: () => void }) {
  const saved = toForm(theirs.cluster);
  const differing = (Object.keys(NAMES) as (keyof ClusterForm)[]).filter((key) => mine[key] !== saved[key]);
  return (
    <section class="notice warn" aria-label="Someone changed it meanwhile">
      <p>
        <strong>Someone changed it meanwhile.</strong> Saving again replaces their values with yours; or take theirs and edit on.
      </p>
      <dl class="facts">
        {differing.map((key) => (
          <div key={key}>
            <dt>{NAMES[key]}</dt>
            <dd>
              theirs <code>{String(saved[key]) || "(empty)"}</code>, yours <code>{String(mine[key]) || "(empty)"}</code>
            </dd>
          </div>
        ))}
      </dl>
      <button type="button" class="button" onClick={take}>
        Take theirs
      </button>
    </section>
  );
}

interface FieldsProps {
  form: ClusterForm;
  setForm: (form: ClusterForm) => void;
  submit: string;
  onSubmit: () => Promise<void>;
  back: string;
}

function ClusterFields({ form, setForm, submit, onSubmit, back }: FieldsProps) {
  const set = <K extends keyof ClusterForm>(key: K) => (value: ClusterForm[K]) => setForm({ ...form, [key]: value });
  const text = (key: { [K in keyof ClusterForm]: ClusterForm[K] extends string ? K : never }[keyof ClusterForm]) => ({ value: form[key], onValue: set(key) });
  const cancel = (
    <a class="button" href={back}>
      Cancel
    </a>
  );
  return (
    <Form label="Cluster" submit={submit} onSubmit={onSubmit} fields={FORM_FIELDS} extra={cancel}>
      {(errorOf) => (
        <>
          <div class="card">
            <TextField label="Name" {...text("name")} required error={errorOf("name")} hint="As it is called in lists and Helm values." />
            <TextField label="Description" {...text("bio")} rows={2} error={errorOf("bio")} />
            <CheckField label="Default cluster" checked={form.is_default} onChecked={set("is_default")} error={errorOf("is_default")} hint="Takes the nodes that no scope of any cluster matches. There is one at a time." />
          </div>
          <fieldset class="card">
            <legend>Scopes: which nodes it takes</legend>
            <p class="note">The strongest match wins: host name, then the narrowest CIDR, then IDC, then location.</p>
            <TextField label="CIDRs" {...text("cidrs")} rows={3} code error={errorOf("scopes.cidrs")} placeholder="10.1.0.0/16" hint="Networks of the nodes' addresses, one a line." />
            <TextField label="IDC" {...text("idc")} code error={errorOf("scopes.idc")} placeholder="cluster-2" hint={<>What nodes have as <code>host.idc</code>; several as <code>a|b</code>.</>} />
            <TextField label="Location" {...text("location")} code error={errorOf("scopes.location")} placeholder="asia|cn|hangzhou" hint={<>What nodes have as <code>host.location</code>, widest first.</>} />
            <TextField label="Host names" {...text("hostnames")} rows={3} code error={errorOf("scopes.hostnames")} placeholder="gpu-*" hint={<>One a line, with <code>*</code>, <code>?</code>, <code>[a-z]</code> and <code>{"{a,b}"}</code>.</>} />
          </fieldset>
          <fieldset class="card">
            <legend>Limits of each node</legend>
            <p class="note">
              As <code>100Mbps</code> or <code>12.5MB/s</code>; empty is no limit. They hold within seconds, also for what is under way; a node's own file may be stricter.
            </p>
            <div class="columns">
              <TextField label="Upload" {...text("uploadLimit")} code error={errorOf("config.shaper.uploadLimit")} />
              <TextField label="Upload to one peer" {...text("perPeerLimit")} code error={errorOf("config.shaper.perPeerLimit")} />
              <TextField label="Download from peers" {...text("downloadLimit")} code error={errorOf("config.shaper.downloadLimit")} />
              <TextField label="Download from origins" {...text("originLimit")} code error={errorOf("config.shaper.originLimit")} />
            </div>
            <CheckField label="Give way to the nodes' other traffic" checked={form.yield} onChecked={set("yield")} error={errorOf("config.shaper.yield")} />
          </fieldset>
          <fieldset class="card">
            <legend>Prices: what traffic costs</legend>
            <p class="note">For the money saved on the bandwidth page; empty is free.</p>
            <div class="columns">
              <TextField label="Currency" {...text("currency")} code error={errorOf("config.prices.currency")} placeholder="USD" />
              <TextField label="A GB from an origin" {...text("originPerGB")} code error={errorOf("config.prices.originPerGB")} placeholder="0.045" />
              <TextField label="A GB between zones" {...text("crossZonePerGB")} code error={errorOf("config.prices.crossZonePerGB")} placeholder="0.01" />
            </div>
          </fieldset>
        </>
      )}
    </Form>
  );
}
