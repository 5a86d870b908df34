// Compresses what Vite built, and fails where the first load is larger than it may be.
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

/** What a browser may have to load before the first page shows, compressed. */
const MAX_FIRST_LOAD_BYTES = 300 * 1024;
/** Below it a compressed form is not worth a file. */
const MIN_BYTES = 512;
const SITE = new URL("../dist/site/", import.meta.url).pathname;

const files = readdirSync(SITE, { recursive: true }).map((name) => join(SITE, String(name)));
let [plain, gzip, brotli] = [0, 0, 0];
for (const file of files.filter((file) => statSync(file).isFile() && !/\.(br|gz)$/.test(file))) {
  const bytes = readFileSync(file);
  const quality = { [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY };
  const forms = { gz: gzipSync(bytes, { level: 9 }), br: brotliCompressSync(bytes, { params: quality }) };
  let [smallestGzip, smallestBrotli] = [bytes.length, bytes.length];
  if (bytes.length >= MIN_BYTES && forms.gz.length < bytes.length) {
    writeFileSync(`${file}.gz`, forms.gz);
    writeFileSync(`${file}.br`, forms.br);
    [smallestGzip, smallestBrotli] = [forms.gz.length, forms.br.length];
  }
  plain += bytes.length;
  gzip += smallestGzip;
  brotli += smallestBrotli;
  console.log(`${relative(SITE, file).padEnd(28)} ${bytes.length} bytes, gzip ${smallestGzip}, brotli ${smallestBrotli}`);
}
const kib = (bytes) => `${(bytes / 1024).toFixed(1)} KiB`;
console.log(`console first load: ${kib(brotli)} brotli, ${kib(gzip)} gzip (${kib(plain)} plain); at most ${kib(MAX_FIRST_LOAD_BYTES)}`);
if (gzip > MAX_FIRST_LOAD_BYTES) {
  console.error(`the first load is ${gzip - MAX_FIRST_LOAD_BYTES} bytes too large`);
  process.exit(1);
}
