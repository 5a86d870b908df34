// Small parts that several pages use.
import type { ComponentChildren } from "preact";
import { useRef, useState } from "preact/hooks";
import type { Time } from "../api/types";
import { ago, dateTime, exact, millis, percent, shortDigest } from "../lib/format";
import { useNow } from "../live";
import { useAnnounce } from "./announce";

export type Tone = "good" | "warn" | "bad" | "plain";

/** A state in a word; the tone only underlines it. */
export function Badge({ tone = "plain", children }: { tone?: Tone; children: ComponentChildren }) {
  return <span class={`badge ${tone}`}>{children}</span>;
}

export function When({ time }: { time: Time | null | undefined }) {
  if (time === null || time === undefined) return <>–</>;
  const at = millis(time);
  return Number.isNaN(at) ? <>{String(time)}</> : <time dateTime={new Date(at).toISOString()}>{dateTime(time)}</time>;
}

/** How long ago, with the time itself for who asks. */
export function Ago({ time }: { time: Time | null | undefined }) {
  const now = useNow(5000);
  if (time === null || time === undefined) return <>never</>;
  const at = millis(time);
  if (Number.isNaN(at)) return <>{String(time)}</>;
  return (
    <time dateTime={new Date(at).toISOString()} title={dateTime(time)}>
      {ago(time, now)}
    </time>
  );
}

export function Digest({ task, link }: { task: string; link?: boolean }) {
  const text = (
    <code class="digest" title={task}>
      {shortDigest(task)}
    </code>
  );
  return link ? <a href={`/tasks/${encodeURIComponent(task)}`}>{text}</a> : text;
}

/** How much of something is done or used, as a bar and in words. */
export function Bar({ value, most, label, tone }: { value: number; most: number; label: string; tone?: Tone }) {
  const share = most > 0 ? Math.min(1, value / most) : 0;
  return (
    <span class="bar-line">
      <span class={`bar ${tone ?? "plain"}`} role="img" aria-label={`${label}: ${percent(value, most)}`}>
        <span style={{ width: `${(100 * share).toFixed(2)}%` }} />
      </span>
      <span class="bar-text">{percent(value, most)}</span>
    </span>
  );
}

/** A figure that one looks for first. */
export function Tile({ label, value, detail, id }: { label: string; value: string; detail?: ComponentChildren; id?: string }) {
  return (
    <div class="tile" id={id}>
      <dt>{label}</dt>
      <dd>
        <span class="tile-value">{value}</span>
        {detail && <span class="tile-detail">{detail}</span>}
      </dd>
    </div>
  );
}

export function Tiles({ children }: { children: ComponentChildren }) {
  return <dl class="tiles">{children}</dl>;
}

export function Bytes({ value }: { value: number }) {
  return <span class="exact">{exact(value)}</span>;
}

/** Facts, name by name. */
export function Facts({ facts }: { facts: readonly [string, ComponentChildren][] }) {
  return (
    <dl class="facts">
      {facts.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

/** A text to be taken along whole. */
export function Copyable({ text, label, fileName }: { text: string; label: string; fileName?: string }) {
  const area = useRef<HTMLPreElement>(null);
  const announce = useAnnounce();
  const copy = async () => {
    try {
      // Not there on pages that came over plain HTTP.
      if (navigator.clipboard) await navigator.clipboard.writeText(text);
      else copyBySelection(area.current);
      announce(`${label}: copied.`);
    } catch {
      announce(`${label}: the browser did not let it be copied; select the text instead.`);
    }
  };
  const save = () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/octet-stream" }));
    link.download = fileName ?? "hawker.txt";
    link.click();
    URL.revokeObjectURL(link.href);
  };
  return (
    <div class="copyable">
      <div class="copyable-actions">
        <button type="button" class="button small" onClick={copy}>
          Copy
        </button>
        {fileName && (
          <button type="button" class="button small" onClick={save}>
            Save as {fileName}
          </button>
        )}
      </div>
      <pre ref={area} tabIndex={0} role="region" aria-label={label}>
        {text}
      </pre>
    </div>
  );
}

function copyBySelection(element: HTMLElement | null) {
  const selection = window.getSelection();
  if (!element || !selection) throw new Error("nothing to select");
  selection.selectAllChildren(element);
  const copied = document.execCommand("copy");
  selection.removeAllRanges();
  if (!copied) throw new Error("refused");
}

/** A button that asks once more before it does what cannot be taken back. */
export function ConfirmButton({ label, question, confirm, onConfirm, small }: { label: string; question: string; confirm: string; onConfirm: () => Promise<void>; small?: boolean }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [error, setError] = useState<string | null>(null);
  const act = async () => {
    try {
      setError(null);
      await onConfirm();
      dialog.current?.close();
    } catch (failure) {
      setError(failure instanceof Error ? failure.message : String(failure));
    }
  };
  const open = () => {
    setError(null);
    dialog.current?.showModal();
  };
  return (
    <>
      <button type="button" class={small ? "button danger small" : "button danger"} onClick={open}>
        {label}
      </button>
      <dialog ref={dialog} aria-label={question}>
        <p>{question}</p>
        {error && (
          <p class="notice bad" role="alert">
            {error}
          </p>
        )}
        <div class="form-end">
          <button type="button" class="button danger" onClick={act}>
            {confirm}
          </button>
          <button type="button" class="button" onClick={() => dialog.current?.close()}>
            Keep it
          </button>
        </div>
      </dialog>
    </>
  );
}
