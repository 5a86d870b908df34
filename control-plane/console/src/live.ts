// What a page shows, asked for again and again while somebody looks. Not a cache: each use asks for itself.
// Invariant: an answer that arrives late never replaces a newer one, and a failed refresh keeps what was shown.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { ApiError } from "./api/client";

export interface Live<T> {
  data: T | null;
  error: ApiError | null;
  /** Milliseconds since 1970 of the last good answer. */
  at: number | null;
  refresh: () => void;
}

/** `ask` again every `everyMs` (0: once), and at once when `key` changes; `key` null: not at all. */
export function useLive<T>(key: string | null, ask: (signal: AbortSignal) => Promise<T>, everyMs: number): Live<T> {
  const [state, setState] = useState<Omit<Live<T>, "refresh"> & { key: string | null }>(() => nothing(key));
  const [turn, setTurn] = useState(0);
  const asking = useRef(ask);
  asking.current = ask;

  useEffect(() => {
    if (key === null) return undefined;
    const stop = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const again = () => {
      if (everyMs > 0 && !stop.signal.aborted) timer = setTimeout(once, everyMs);
    };
    const once = async () => {
      // Nobody looks: nothing is asked until somebody does.
      if (document.hidden) return again();
      try {
        const data = await asking.current(stop.signal);
        if (!stop.signal.aborted) setState({ key, data, error: null, at: Date.now() });
      } catch (error) {
        const failure = error instanceof ApiError ? error : new ApiError(0, String(error));
        if (!stop.signal.aborted) setState((last) => ({ ...(last.key === key ? last : nothing<T>(key)), error: failure }));
      }
      again();
    };
    void once();
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, [key, everyMs, turn]);

  const refresh = useCallback(() => setTurn((last) => last + 1), []);
  // What belongs to another key is not shown for this one.
  const shown = state.key === key ? state : nothing<T>(key);
  return { data: shown.data, error: shown.error, at: shown.at, refresh };
}

function nothing<T>(key: string | null): { key: string | null; data: T | null; error: null; at: null } {
  return { key, data: null, error: null, at: null };
}

/** Milliseconds since 1970, renewed every `everyMs`. */
export function useNow(everyMs = 1000): number {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
  return now;
}
