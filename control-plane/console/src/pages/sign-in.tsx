// Sign-in: by password, and by the providers that the manager is configured with.
import { useEffect, useState } from "preact/hooks";
import { get } from "../api/client";
import type { Provider } from "../api/types";
import { useLive } from "../live";
import { useSession } from "../session";
import { Form, TextField } from "../ui/form";

export function SignInPage({ note }: { note: string | null }) {
  const { signIn } = useSession();
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const providers = useLive("oidc", (signal) => get<{ providers: Provider[] }>("/oidc", signal), 0);
  useEffect(() => {
    document.title = "Sign in · Hawker";
  }, []);
  return (
    <main class="sign-in" id="main">
      <div class="sign-in-card">
        <img src="/icon.svg" alt="" width="48" height="48" />
        <h1>Sign in to Hawker</h1>
        {note && (
          <p class="notice" role="status">
            {note}
          </p>
        )}
        <Form label="Sign in" submit="Sign in" fields={["name", "password"]} onSubmit={() => signIn(name, password)}>
          {(errorOf) => (
            <>
              <TextField label="Name" value={name} onValue={setName} autocomplete="username" required error={errorOf("name")} />
              <TextField label="Password" type="password" value={password} onValue={setPassword} autocomplete="current-password" required error={errorOf("password")} />
            </>
          )}
        </Form>
        {providers.data && providers.data.providers.length > 0 && (
          <section aria-label="Other ways to sign in" class="providers">
            {providers.data.providers.map((provider) => (
              <a key={provider.name} class="button" href={`/api/v1/oidc/${encodeURIComponent(provider.name)}/login`}>
                Sign in with {provider.label || provider.name}
              </a>
            ))}
          </section>
        )}
      </div>
    </main>
  );
}
