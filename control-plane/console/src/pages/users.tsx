// Users: who may sign in, as what, and for which clusters.
import { useLocation, useRoute } from "preact-iso";
import { useEffect, useState } from "preact/hooks";
import { call, get, getAll } from "../api/client";
import type { Cluster, Page as Listed, Role, User } from "../api/types";
import { useLive } from "../live";
import { useMe } from "../session";
import { useAnnounce } from "../ui/announce";
import { CheckField, ChoiceField, Form, SelectField, TextField } from "../ui/form";
import { Page, Section, Shown } from "../ui/page";
import { Badge, ConfirmButton, Facts, When } from "../ui/parts";
import { Table } from "../ui/table";

const EVERY_MS = 10_000;
const ROLES: readonly { value: Role; label: string }[] = [
  { value: "viewer", label: "Viewer: sees" },
  { value: "operator", label: "Operator: changes clusters, runs jobs" },
  { value: "admin", label: "Admin: also users and audit" },
];

function useClusterNames() {
  const live = useLive("clusters", (signal) => getAll<Listed<Cluster>>("/clusters", signal), 0);
  return (live.data?.items ?? []).map(({ id, name }) => ({ value: id, label: name }));
}

export function UsersPage() {
  const live = useLive("users", (signal) => getAll<Listed<User>>("/users", signal), EVERY_MS);
  const names = useClusterNames();
  const nameOf = (id: number) => names.find(({ value }) => value === id)?.label ?? String(id);
  return (
    <Page title="Users">
      <Shown live={live} what="the users" route="GET /api/v1/users">
        {({ items }) => (
          <Table
            caption="Users"
            rows={items}
            rowKey={(user) => user.id}
            columns={[
              { head: "Name", short: true, cell: (user) => <a href={`/users/${user.id}`}>{user.name}</a> },
              { head: "Role", cell: (user) => user.role },
              { head: "Clusters", cell: (user) => (user.cluster_ids.length === 0 ? "all" : user.cluster_ids.map(nameOf).join(", ")) },
              { head: "Signs in by", short: true, cell: (user) => (user.source === "local" ? "password" : user.source) },
              { head: "State", cell: (user) => <Badge tone={user.disabled ? "bad" : "good"}>{user.disabled ? "disabled" : "active"}</Badge> },
              { head: "Added", short: true, cell: (user) => <When time={user.created_at} /> },
            ]}
          />
        )}
      </Shown>
      <NewUser refresh={live.refresh} />
    </Page>
  );
}

const EMPTY = { name: "", password: "", role: "viewer" as Role, cluster_ids: [] as number[] };

function NewUser({ refresh }: { refresh: () => void }) {
  const [form, setForm] = useState(EMPTY);
  const announce = useAnnounce();
  const names = useClusterNames();
  const create = async () => {
    const { body } = await call<User>("/users", { method: "POST", body: form });
    announce(`User ${body.name} was added.`);
    setForm(EMPTY);
    refresh();
  };
  return (
    <Section title="Add a user" wide>
      <Form label="Add a user" submit="Add user" onSubmit={create} fields={["name", "password", "role", "cluster_ids"]}>
        {(errorOf) => (
          <>
            <div class="columns">
              <TextField label="Name" value={form.name} onValue={(name) => setForm({ ...form, name })} required error={errorOf("name")} />
              <TextField label="Password" type="password" autocomplete="new-password" value={form.password} onValue={(password) => setForm({ ...form, password })} required error={errorOf("password")} />
              <SelectField label="Role" value={form.role} onValue={(role) => setForm({ ...form, role: role as Role })} options={ROLES} error={errorOf("role")} />
            </div>
            <ChoiceField label="Clusters" hint="None chosen: all." options={names} chosen={form.cluster_ids} onChosen={(cluster_ids) => setForm({ ...form, cluster_ids })} error={errorOf("cluster_ids")} />
          </>
        )}
      </Form>
    </Section>
  );
}

export function UserPage() {
  const { id } = useRoute().params;
  const live = useLive(`user-${id}`, (signal) => get<User>(`/users/${id}`, signal), 0);
  return (
    <Page title={live.data ? `User ${live.data.name}` : "User"}>
      <Shown live={live} what="the user" route={`GET /api/v1/users/${id}`}>
        {(user) => <EditUser user={user} refresh={live.refresh} />}
      </Shown>
    </Page>
  );
}

function EditUser({ user, refresh }: { user: User; refresh: () => void }) {
  const { route } = useLocation();
  const announce = useAnnounce();
  const me = useMe();
  const names = useClusterNames();
  const start = { role: user.role, cluster_ids: user.cluster_ids, disabled: user.disabled, password: "" };
  const [form, setForm] = useState(start);
  useEffect(() => setForm(start), [user]);
  const save = async () => {
    const { password, ...others } = form;
    await call(`/users/${user.id}`, { method: "PATCH", body: password ? { ...others, password } : others });
    announce(`User ${user.name} was changed.`);
    refresh();
  };
  const remove = async () => {
    await call(`/users/${user.id}`, { method: "DELETE" });
    announce(`User ${user.name} was deleted.`);
    route("/users");
  };
  return (
    <>
      <Section title="Account">
        <Facts
          facts={[
            ["Signs in by", user.source === "local" ? "password" : user.source],
            ["Added", <When time={user.created_at} />],
          ]}
        />
      </Section>
      <Section title="What they may" wide>
        <Form label={`User ${user.name}`} submit="Save" onSubmit={save} fields={["role", "cluster_ids", "disabled", "password"]}>
          {(errorOf) => (
            <>
              <SelectField label="Role" value={form.role} onValue={(role) => setForm({ ...form, role: role as Role })} options={ROLES} error={errorOf("role")} />
              <ChoiceField label="Clusters" hint="None chosen: all." options={names} chosen={form.cluster_ids} onChosen={(cluster_ids) => setForm({ ...form, cluster_ids })} error={errorOf("cluster_ids")} />
              <CheckField label="Disabled: may not sign in, and their tokens do not count" checked={form.disabled} onChecked={(disabled) => setForm({ ...form, disabled })} error={errorOf("disabled")} />
              {user.source === "local" && (
                <TextField label="New password" type="password" autocomplete="new-password" value={form.password} onValue={(password) => setForm({ ...form, password })} hint="Empty: it stays as it is." error={errorOf("password")} />
              )}
            </>
          )}
        </Form>
      </Section>
      {user.id !== me.id && <ConfirmButton label="Delete user" question={`Delete user ${user.name} and their tokens?`} confirm={`Delete ${user.name}`} onConfirm={remove} />}
    </>
  );
}
