// An address that leads nowhere.
import { useLocation } from "preact-iso";
import { Page } from "../ui/page";

export function NotFoundPage() {
  const { path } = useLocation();
  return (
    <Page title="There is no such page">
      <p class="notice">
        <code>{path}</code> is no page of the console. <a href="/clusters">To the clusters</a>
      </p>
    </Page>
  );
}
