// Somebody who makes calls in a browser of their own.
//
//     node browser.mjs --chromium /usr/bin/chromium --profile FOLDER
//
// Reads what to do from standard input, one JSON object a line (`{"deed":"call",…}`), and writes
// what happens to standard output in the same way. Ends with its standard input.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";

const { values: options } = parseArgs({
    options: { chromium: { type: "string" }, profile: { type: "string" } },
});
const say = (said) => process.stdout.write(JSON.stringify(said) + "\n");

// What the page is made of, and nothing else. Loopback counts as a secure origin: there is a
// microphone.
const here = dirname(fileURLToPath(import.meta.url));
const html =
    '<!doctype html><link rel="icon" href="data:,"><script type="module" src="page.js"></script>';
const files = {
    "/": ["text/html", Buffer.from(html)],
    "/page.js": ["text/javascript", await readFile(join(here, "page", "page.js"))],
    "/pkg/matrix_sdk_crypto_wasm_bg.wasm": [
        "application/wasm",
        await readFile(join(here, "page", "pkg", "matrix_sdk_crypto_wasm_bg.wasm")),
    ],
};
const server = createServer((request, response) => {
    const [kind, bytes] = files[request.url] ?? [];
    response.writeHead(bytes ? 200 : 404, kind ? { "content-type": kind } : {});
    response.end(bytes);
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));

// Chromium ends when this process does, however that comes about: it is driven through a pipe.
const context = await chromium.launchPersistentContext(options.profile, {
    executablePath: options.chromium,
    headless: true,
    chromiumSandbox: false,
    // A busy machine with two cores: better late than not at all.
    timeout: 120_000,
    args: [
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--no-proxy-server",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        // All that is called here is on this machine.
        "--allow-loopback-in-peer-connection",
    ],
});
const end = async () => {
    await context.close().catch(() => {});
    process.exit(0);
};
process.on("SIGTERM", end);
process.on("SIGINT", end);
context.on("close", () => process.exit(1));

const page = context.pages()[0] ?? (await context.newPage());
page.on("console", (message) => console.error(`[${message.type()}] ${message.text()}`));
page.on("pageerror", (error) => say({ what: "failed", of: "page", reason: String(error) }));
await page.exposeFunction("say", say);
await page.goto(`http://127.0.0.1:${server.address().port}/`);
await page.waitForFunction(() => typeof window.person === "function");
say({ what: "open" });

const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => {
    page.evaluate((what) => window.person(what), JSON.parse(line)).catch((error) => {
        say({ what: "failed", of: "browser", reason: String(error) });
    });
});
lines.on("close", end);
