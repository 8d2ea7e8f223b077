// Bundle the page into nenya/portal/page/, or (--tests) its unit tests into build/tests/.
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const page = join(here, "..", "nenya", "portal", "page");

/** Every file that decides what the bundle is, in the order of its path; tests/portal/test_bundle.py reads the same. */
function sources() {
  const found = ["build.mjs", "package.json", "package-lock.json", "tsconfig.json"];
  for (const entry of readdirSync(join(here, "src"), { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) found.push(relative(here, join(entry.parentPath, entry.name)).split("\\").join("/"));
  }
  return found.sort();
}

function digest() {
  const hash = createHash("sha256");
  for (const name of sources()) {
    hash.update(`${name}\n`);
    hash.update(readFileSync(join(here, name), "utf8").replaceAll("\r\n", "\n"));
  }
  return hash.digest("hex");
}

if (process.argv.includes("--tests")) {
  const tests = readdirSync(join(here, "tests")).filter((name) => name.endsWith(".test.ts"));
  await build({
    entryPoints: tests.map((name) => join(here, "tests", name)),
    bundle: true, platform: "node", format: "esm", outdir: join(here, "build", "tests"), outExtension: { ".js": ".mjs" },
  });
} else {
  mkdirSync(page, { recursive: true });
  // One classic script: file:// pages may load neither modules nor fetch.
  await build({
    entryPoints: [join(here, "src", "main.ts")], bundle: true, minify: true, format: "iife", target: "es2022",
    outfile: join(page, "app.js"), legalComments: "inline", charset: "utf8",
  });
  await build({ entryPoints: [join(here, "src", "app.css")], bundle: true, minify: true, outfile: join(page, "app.css") });
  copyFileSync(join(here, "src", "index.html"), join(page, "index.html"));
  writeFileSync(join(page, "sources.sha256"), `${digest()}\n`);
}
