// Bundles the sources of the viewer and what they use of three.js into viewer.min.js.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { build } from "esbuild";

const SOURCES = ["cortex.js", "data.js", "plots.js", "viewer.js"];
const { dependencies } = JSON.parse(readFileSync("package.json", "utf8"));
const digest = createHash("sha256");
for (const file of SOURCES) digest.update(readFileSync(file));

await build({
  entryPoints: ["viewer.js"],
  outfile: "viewer.min.js",
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2020",
  legalComments: "none",
  charset: "utf8",
  banner: {
    js:
      `/* deepesi viewer, sources ${digest.digest("hex")}; ` +
      `with three.js ${dependencies.three}, Copyright 2010-2026 three.js authors, MIT License, see NOTICE */`,
  },
});
