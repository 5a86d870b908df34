// The console's build: one script and one style, named by their content, that the manager embeds.
import { defineConfig } from "vitest/config";

export default defineConfig({
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: "dist/site",
    emptyOutDir: true,
    target: "es2022",
    // Everything is one chunk: there is nothing to preload.
    modulePreload: false,
    // A data: URL would need its own line in the Content-Security-Policy.
    assetsInlineLimit: 0,
  },
  server: { proxy: { "/api": "http://127.0.0.1:8080" } },
  test: { include: ["test/**/*.test.ts"], environment: "node" },
});
