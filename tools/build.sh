#!/usr/bin/env bash
# Build the wheel and the sdist, install the wheel in an empty environment and run the demo from there.
#
# The environment lies under build/, and the demo starts in a folder where the source tree cannot be
# imported: what is missing in the wheel is missing here too.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

rm -rf dist build/wheel-check
mkdir -p build/wheel-check/run
.venv/bin/python -m build --no-isolation --outdir dist .

wheel=$(echo "$root"/dist/mcp_tasks-*.whl)
if command -v uv >/dev/null; then
  uv venv --quiet --python .venv/bin/python build/wheel-check/venv
  VIRTUAL_ENV=build/wheel-check/venv uv pip install --quiet --constraints constraints.txt "$wheel[cli]"
else
  .venv/bin/python -m venv build/wheel-check/venv
  PIP_DISABLE_PIP_VERSION_CHECK=1 build/wheel-check/venv/bin/python -m pip install --quiet \
    --constraint constraints.txt "$wheel[cli]"
fi

cd build/wheel-check/run
../venv/bin/python - <<'PY'
import pathlib
import sys

import mcp_tasks

place = pathlib.Path(mcp_tasks.__file__)
if pathlib.Path(sys.prefix).resolve() not in place.resolve().parents:
    sys.exit(f"mcp_tasks came from {place}, not from the wheel")
PY
../venv/bin/mcp-tasks demo
echo "built $(cd "$root" && ls dist | tr '\n' ' ')and ran the demo from the wheel"
