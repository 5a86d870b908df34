// The frame around all pages: session, navigation, routes. A page does not know of another but by its address.
import { LocationProvider, Route, Router, useLocation } from "preact-iso";
import { AuditPage } from "./pages/audit";
import { BandwidthPage } from "./pages/bandwidth";
import { ClusterPage } from "./pages/cluster";
import { ClusterEditPage, ClusterNewPage } from "./pages/cluster-form";
import { ClustersPage } from "./pages/clusters";
import { HostPage, HostsPage } from "./pages/hosts";
import { JobPage } from "./pages/job";
import { JobsPage } from "./pages/jobs";
import { NotFoundPage } from "./pages/not-found";
import { PlacementPage } from "./pages/placement";
import { RolloutsPage } from "./pages/rollouts";
import { SignInPage } from "./pages/sign-in";
import { TaskPage, TasksPage } from "./pages/tasks";
import { TokensPage } from "./pages/tokens";
import { UserPage, UsersPage } from "./pages/users";
import { SessionProvider, useSession } from "./session";
import { Announcer } from "./ui/announce";
import { Shell } from "./ui/shell";

/** Links to these are the browser's to follow: OIDC sign-in leaves the console. */
const OWN_PATHS = /^\/(?!api\/)/;

export function App() {
  return (
    <LocationProvider scope={OWN_PATHS}>
      <Announcer>
        <SessionProvider>
          <Gate />
        </SessionProvider>
      </Announcer>
    </LocationProvider>
  );
}

function Gate() {
  const { state, retry } = useSession();
  const { path } = useLocation();
  if (state.kind === "unknown") return <p class="loading">Loading …</p>;
  if (state.kind === "unreachable") {
    return (
      <main class="sign-in">
        <h1>Hawker</h1>
        <div class="notice bad" role="alert">
          <p>{state.error.message}</p>
          <button type="button" class="button" onClick={retry}>
            Try again
          </button>
        </div>
      </main>
    );
  }
  if (state.kind === "out") return <SignInPage note={state.note} />;
  return (
    <Shell path={path}>
      <Router>
        <Route path="/" component={ClustersPage} />
        <Route path="/clusters" component={ClustersPage} />
        <Route path="/clusters/new" component={ClusterNewPage} />
        <Route path="/clusters/:id" component={ClusterPage} />
        <Route path="/clusters/:id/edit" component={ClusterEditPage} />
        <Route path="/placement" component={PlacementPage} />
        <Route path="/hosts" component={HostsPage} />
        <Route path="/hosts/:id" component={HostPage} />
        <Route path="/bandwidth" component={BandwidthPage} />
        <Route path="/rollouts" component={RolloutsPage} />
        <Route path="/tasks" component={TasksPage} />
        <Route path="/tasks/:task" component={TaskPage} />
        <Route path="/jobs" component={JobsPage} />
        <Route path="/jobs/:id" component={JobPage} />
        <Route path="/users" component={UsersPage} />
        <Route path="/users/:id" component={UserPage} />
        <Route path="/tokens" component={TokensPage} />
        <Route path="/audit" component={AuditPage} />
        <Route default component={NotFoundPage} />
      </Router>
    </Shell>
  );
}
