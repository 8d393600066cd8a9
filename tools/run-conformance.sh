#!/usr/bin/env bash
# Run the official MCP conformance scenarios that concern tasks against a running server.
#
#   run-conformance.sh SERVER_URL [OUT_DIR]        e.g. run-conformance.sh http://127.0.0.1:8931/mcp
#
# Runs every tasks-* server scenario of the suite, then server-stateless and http-header-validation.
# Prints "<scenario>: N passed, N failed" for each (failed checks indented below it) and, as the last
# line, "N passed, N failed". Progress and set-up messages go to stderr.
#
# Exit status: 0 = every check passed and at least MIN_PASSED of them ran
#              1 = a check failed or warned, a scenario reported nothing, or fewer than MIN_PASSED passed
#              2 = usage or set-up error
#
# Environment:
#   CONFORMANCE_DIR      where the suite (and a Node 22, when needed) is installed and looked for
#                        (default: $XDG_CACHE_HOME or ~/.cache, else $TMPDIR; subfolder mcp-conformance)
#   CONFORMANCE_VERSION  version of @modelcontextprotocol/conformance (default 0.2.0-alpha.12)
#   NODE                 a Node >= 22 to use (default: node on PATH when new enough, else npm's node@22)
#   NPM                  the npm to install with (default: npm on PATH)
#   SCENARIOS            space-separated list that replaces the default one
#   MIN_PASSED           least number of passed checks (default 44 with the default scenarios, the count of a
#                        full pass of the tasks scenarios alone; 1 with SCENARIOS set)
#   SCENARIO_TIMEOUT     seconds for each scenario (default 90)
set -uo pipefail

die() { echo "run-conformance: $*" >&2; exit 2; }

url=${1:-}
[ -n "$url" ] || die "usage: $0 SERVER_URL [OUT_DIR]"
out=${2:-}
version=${CONFORMANCE_VERSION:-0.2.0-alpha.12}

dir=${CONFORMANCE_DIR:-}
if [ -z "$dir" ]; then
  if [ -n "${XDG_CACHE_HOME:-}" ]; then base=$XDG_CACHE_HOME
  elif [ -n "${HOME:-}" ] && [ -w "$HOME" ]; then base=$HOME/.cache
  elif [ -n "${TMPDIR:-}" ]; then base=$TMPDIR
  else die "set CONFORMANCE_DIR to a folder that can be written"; fi
  dir=$base/mcp-conformance
fi

npm=${NPM:-npm}
install() {
  command -v "$npm" >/dev/null || die "no npm to install $2 with"
  echo "installing $2 into $1" >&2
  mkdir -p "$1" || die "cannot create $1"
  "$npm" install --prefix "$1" --no-save --no-package-lock --no-audit --no-fund --no-update-notifier \
    --loglevel=error "${@:3}" "$2" >&2 || die "npm could not install $2"
}
new_enough() { "$1" -e 'process.exit(+process.versions.node.split(".")[0] >= 22 ? 0 : 1)' 2>/dev/null; }

# --- Node >= 22: the suite imports fs.globSync, which Node 20 lacks -------------------------------
node=${NODE:-}
if [ -n "$node" ]; then
  new_enough "$node" || die "NODE=$node is not a Node >= 22"
elif command -v node >/dev/null && new_enough node; then
  node=$(command -v node)
else
  node=$dir/node22/node_modules/node/bin/node
  if ! [ -x "$node" ]; then
    # node@22 fetches its binary in a preinstall script, so --ignore-scripts would leave it without one.
    install "$dir/node22" node@22 --ignore-scripts=false
  fi
  new_enough "$node" || die "$node is not a working Node >= 22"
fi

# --- the suite itself: needs no install scripts ---------------------------------------------------
suite=$dir/conformance-$version
bin=$suite/node_modules/@modelcontextprotocol/conformance/dist/index.js
if ! [ -f "$bin" ]; then
  install "$suite" "@modelcontextprotocol/conformance@$version" --ignore-scripts
fi
"$node" "$bin" --version >/dev/null 2>&1 || die "the suite at $bin does not start"

# --- scenarios ------------------------------------------------------------------------------------
if [ -n "${SCENARIOS:-}" ]; then
  scenarios=$SCENARIOS
  min=${MIN_PASSED:-1}
else
  # Read from the suite's own list, so that a tasks scenario added by a later version is picked up.
  tasks=$("$node" "$bin" list --server | sed -n 's/^  - \(tasks-[a-z0-9-]*\).*/\1/p')
  [ -n "$tasks" ] || die "the suite lists no tasks-* scenario"
  scenarios="$tasks server-stateless http-header-validation"
  min=${MIN_PASSED:-44}
fi

if [ -n "$out" ]; then mkdir -p "$out" || die "cannot create $out"; fi
# A fresh folder for each run: names inside hold a timestamp, so old results would be counted again.
if [ -n "$out" ]; then out=$(mktemp -d "$out/run-XXXXXX"); else out=$(mktemp -d); fi || die "cannot create a results folder"

echo "conformance $("$node" "$bin" --version), node $("$node" --version), server $url, results in $out" >&2
total_pass=0 total_fail=0
for s in $scenarios; do
  # One process for each scenario, and never --spec-version: with it extension scenarios are "SKIPPED", exit 0.
  timeout "${SCENARIO_TIMEOUT:-90}" "$node" "$bin" server --url "$url" --scenario "$s" -o "$out" >"$out/$s.log" 2>&1
  rc=$?
  json=
  for f in "$out"/server-"$s"-2*/checks.json; do [ -f "$f" ] && json=$f; done
  if [ -z "$json" ]; then
    echo "$s: 0 passed, 1 failed"
    echo "    no checks.json, exit $rc: $(grep -m1 -iE 'error|refused|skipped|unknown' "$out/$s.log" | cut -c1-200)"
    total_fail=$((total_fail + 1))
    continue
  fi
  # A WARNING counts as failed here, though the suite's own exit status lets it pass; SKIPPED and INFO count as neither.
  read -r pass fail < <("$node" -e '
    const checks = JSON.parse(require("fs").readFileSync(process.argv[1]));
    const count = (...status) => checks.filter((c) => status.includes(c.status)).length;
    console.log(count("SUCCESS"), count("FAILURE", "WARNING"));' "$json")
  # A crash after the checks were written still fails the scenario.
  if [ "$rc" -ne 0 ] && [ "$fail" -eq 0 ]; then fail=1; fi
  echo "$s: $pass passed, $fail failed"
  if [ "$fail" -gt 0 ]; then
    "$node" -e '
      for (const c of JSON.parse(require("fs").readFileSync(process.argv[1])))
        if (c.status === "FAILURE" || c.status === "WARNING")
          console.log(`    ${c.status} ${c.id}: ${(c.errorMessage || "").slice(0, 300)}`);' "$json"
  fi
  total_pass=$((total_pass + pass)) total_fail=$((total_fail + fail))
done

status=0
[ "$total_fail" -eq 0 ] || status=1
if [ "$total_pass" -lt "$min" ]; then
  echo "run-conformance: only $total_pass checks passed, expected at least $min" >&2
  status=1
fi
echo "$total_pass passed, $total_fail failed"
exit $status
