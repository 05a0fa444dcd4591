// Puts the page together: `page.js`, and the cryptography in WebAssembly beside it.

import { build } from "esbuild";
import { copyFile, mkdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const out = join(here, "page");
await mkdir(out, { recursive: true });
await build({
    entryPoints: [join(here, "page.mjs")],
    bundle: true,
    format: "esm",
    outfile: join(out, "page.js"),
    define: { global: "globalThis" },
    logLevel: "warning",
});
// The bindings look for it beside themselves, in `pkg`.
const crypto = dirname(createRequire(import.meta.url).resolve("@matrix-org/matrix-sdk-crypto-wasm"));
const wasm = join("pkg", "matrix_sdk_crypto_wasm_bg.wasm");
await mkdir(join(out, "pkg"), { recursive: true });
await copyFile(join(crypto, wasm), join(out, wasm));
