// The frame of a page: its heading (which takes the focus when the page is reached by a link), and what stands for content
// that is not there.
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import type { ApiError } from "../api/client";
import { clock } from "../lib/format";
import type { Live } from "../live";

let firstPage = true;

export interface PageProps {
  title: string;
  /** Beside the heading: what can be done here. */
  actions?: ComponentChildren;
  intro?: ComponentChildren;
  children: ComponentChildren;
}

export function Page({ title, actions, intro, children }: PageProps) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = `${title} · Hawker`;
  }, [title]);
  useEffect(() => {
    // The browser has placed the focus when the first page comes; later pages come without it.
    if (firstPage) firstPage = false;
    else heading.current?.focus();
    window.scrollTo(0, 0);
  }, []);
  return (
    <>
      <header class="page-head">
        <h1 tabIndex={-1} ref={heading}>
          {title}
        </h1>
        {actions && <div class="actions">{actions}</div>}
      </header>
      {intro && <p class="intro">{intro}</p>}
      {children}
    </>
  );
}

/** A part of a page with a heading of its own. */
export function Section({ title, note, children, wide }: { title: string; note?: ComponentChildren; children: ComponentChildren; wide?: boolean }) {
  const id = `s-${title.toLowerCase().replace(/[^a-z0-9]+/g, "-")}`;
  return (
    <section class={wide ? "card wide" : "card"} aria-labelledby={id}>
      <header class="card-head">
        <h2 id={id}>{title}</h2>
        {note && <p class="note">{note}</p>}
      </header>
      {children}
    </section>
  );
}

/** Shows what `live` has, says what it lacks. `what` is what the route would have given: "the rollouts". */
export function Shown<T>({ live, what, route, children }: { live: Live<T>; what: string; route?: string; children: (data: T) => ComponentChildren }) {
  const { data, error, at, refresh } = live;
  if (data === null && error) return <Failure error={error} what={what} route={route} retry={refresh} />;
  if (data === null) return <p class="loading">Loading {what} …</p>;
  return (
    <>
      {error && (
        <p class="notice warn" role="status">
          Not refreshed since {at === null ? "the start" : clock(at / 1000)}: {error.message}
        </p>
      )}
      {children(data)}
    </>
  );
}

export function Failure({ error, what, route, retry }: { error: ApiError; what: string; route?: string | undefined; retry?: () => void }) {
  if (error.status === 404 && route) {
    return (
      <p class="notice">
        This manager does not serve <code>{route}</code>, so {what} cannot be shown. A newer manager may.
      </p>
    );
  }
  if (error.status === 403) return <p class="notice">Your role does not allow to see {what}.</p>;
  return (
    <div class="notice bad" role="alert">
      <p>
        {what.charAt(0).toUpperCase() + what.slice(1)} could not be loaded: {error.message}
      </p>
      {retry && (
        <button type="button" class="button" onClick={retry}>
          Try again
        </button>
      )}
    </div>
  );
}

/** What stands where a list has nothing in it. */
export function Empty({ children }: { children: ComponentChildren }) {
  return <p class="empty">{children}</p>;
}
