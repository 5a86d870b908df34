// Which cluster would this node get, and why: asked of the same function that places nodes.
import { useState } from "preact/hooks";
import { get } from "../api/client";
import type { Placement } from "../api/types";
import { Form, TextField } from "../ui/form";
import { Page, Section } from "../ui/page";
import { Badge, Facts } from "../ui/parts";

const FIELDS = ["ip", "idc", "location", "hostname"] as const;

export function PlacementPage() {
  const [node, setNode] = useState({ ip: "", idc: "", location: "", hostname: "" });
  const [placed, setPlaced] = useState<Placement | null>(null);
  const ask = async () => {
    setPlaced(null);
    setPlaced(await get<Placement>(`/placements?${new URLSearchParams(node)}`));
  };
  const text = (key: keyof typeof node) => ({ value: node[key], onValue: (value: string) => setNode({ ...node, [key]: value }) });
  return (
    <Page title="Placement" intro="Which cluster a node would get, and why. What it says of itself stands in its daemon.yaml under host; what is left empty matches nothing.">
      <div class="cards">
        <Section title="The node">
          <Form label="Node" submit="Where would it go?" fields={FIELDS} onSubmit={ask}>
            {(errorOf) => (
              <>
                <TextField label="IP address" {...text("ip")} code error={errorOf("ip")} placeholder="10.1.0.7" />
                <TextField label="IDC" {...text("idc")} code error={errorOf("idc")} />
                <TextField label="Location" {...text("location")} code error={errorOf("location")} placeholder="asia|cn|hangzhou" />
                <TextField label="Host name" {...text("hostname")} code error={errorOf("hostname")} />
              </>
            )}
          </Form>
        </Section>
        <Section title="The answer">
          <div aria-live="polite" class="answer">
            {placed ? <Answer placed={placed} /> : <p class="note">Nothing asked yet.</p>}
          </div>
        </Section>
      </div>
    </Page>
  );
}

function Answer({ placed }: { placed: Placement }) {
  return (
    <>
      <p class="answer-line">
        <a href={`/clusters/${placed.cluster_id}`}>{placed.cluster_name}</a>
      </p>
      <p class="answer-why">because {placed.reason}</p>
      <Facts
        facts={[
          ["Scheduler cluster ID", <code>{placed.scheduler_cluster_id}</code>],
          ["Seed peer cluster ID", <code>{placed.seed_peer_cluster_id}</code>],
          [
            "Schedulers",
            placed.schedulers.length > 0 ? (
              placed.schedulers.map((one) => <code class="chip" key={one.id}>{one.addr}</code>)
            ) : (
              <Badge tone="warn">none is up: the node follows its cluster.fallback</Badge>
            ),
          ],
        ]}
      />
    </>
  );
}
