// Who is signed in. The session itself is an HttpOnly cookie that no script sees; here is only what the manager says of it.
import { createContext, type ComponentChildren } from "preact";
import { useCallback, useContext, useEffect, useMemo, useState } from "preact/hooks";
import { ApiError, call, onSessionEnded, useCsrfToken } from "./api/client";
import type { Me, Role } from "./api/types";

export type State =
  | { kind: "unknown" }
  | { kind: "unreachable"; error: ApiError }
  | { kind: "out"; note: string | null }
  | { kind: "in"; me: Me };

interface SignedIn {
  csrf_token: string;
  user: Me;
}

export interface Session {
  state: State;
  signIn: (name: string, password: string) => Promise<void>;
  signOut: () => Promise<void>;
  retry: () => void;
}

const Context = createContext<Session | null>(null);

export function SessionProvider({ children }: { children: ComponentChildren }) {
  const [state, setState] = useState<State>({ kind: "unknown" });

  const look = useCallback(async () => {
    try {
      const { body } = await call<Me>("/users/me", { anonymous: true });
      useCsrfToken(body.csrf_token ?? null);
      setState({ kind: "in", me: body });
    } catch (error) {
      const failure = error as ApiError;
      setState(failure.status === 401 ? { kind: "out", note: null } : { kind: "unreachable", error: failure });
    }
  }, []);

  useEffect(() => {
    onSessionEnded(() => {
      useCsrfToken(null);
      setState((last) => (last.kind === "in" ? { kind: "out", note: "Your session has ended. Sign in again." } : last));
    });
    void look();
  }, [look]);

  const session = useMemo<Session>(
    () => ({
      state,
      retry: () => void look(),
      signIn: async (name, password) => {
        const options = { method: "POST", body: { name, password }, anonymous: true } as const;
        const { body } = await call<SignedIn>("/users/signin?cookie=true", options);
        useCsrfToken(body.csrf_token);
        setState({ kind: "in", me: body.user });
      },
      signOut: async () => {
        await call("/users/signout", { method: "POST", anonymous: true });
        useCsrfToken(null);
        setState({ kind: "out", note: "You are signed out." });
      },
    }),
    [state, look],
  );
  return <Context.Provider value={session}>{children}</Context.Provider>;
}

export function useSession(): Session {
  const session = useContext(Context);
  if (!session) throw new Error("outside of SessionProvider");
  return session;
}

/** The signed-in user; pages are only shown to one. */
export function useMe(): Me {
  const { state } = useSession();
  if (state.kind !== "in") throw new Error("nobody is signed in");
  return state.me;
}

/** The clusters that the account is for; none named: all. Sums over clusters are only for who sees all. */
export function useReach(): number[] {
  return useMe().cluster_ids;
}

const RANK: Record<Role, number> = { viewer: 0, operator: 1, admin: 2 };

/** Whether to offer what needs `role`; the manager decides when it is asked. */
export function useMay(role: Role): boolean {
  return (RANK[useMe().role] ?? 0) >= RANK[role];
}
