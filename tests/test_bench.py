"""The benchmarks run, and say what they found in the form that others read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run everything once, quickly."""
    out = tmp_path_factory.mktemp("build")
    command = [sys.executable, "-m", "bench", "--quick", "--out", str(out)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_the_report_has_the_agreed_form(build: Path) -> None:
    """Later backends add rows to it, and scripts compare it."""
    report = json.loads((build / "bench.json").read_text())

    assert set(report) == {"round_trip", "backend_cas", "store_mutation_us"}
    assert set(report["round_trip"]) == {
        "memory",
        "memory frozen",
        "sqlite",
        "sqlite frozen",
    }
    for clients in report["round_trip"].values():
        assert set(clients) == {"1", "16"}
        for row in clients.values():
            assert set(row) == {"ratio", "cpu_ms", "plain_cpu_ms", "per_second"}
            assert all(figure > 0 for figure in row.values())
    assert set(report["backend_cas"]) == {"sqlite", "redis", "postgres", "dynamodb"}
    for callers in report["backend_cas"].values():
        assert set(callers) == {"1", "16", "128"}
        for row in callers.values():
            assert set(row) == {"ratio", "per_second", "raw_per_second"}
            assert all(figure > 0 for figure in row.values())
    assert report["store_mutation_us"] > 0


def test_what_must_not_grow_is_reported_too(build: Path) -> None:
    """Each of these has a bar of its own."""
    report = json.loads((build / "bench-extra.json").read_text())

    assert set(report) == {"LongTask", "LargeArguments", "Sleepers", "Restart", "Pages"}
    assert set(report["Pages"]) == {"sqlite", "redis", "postgres", "dynamodb"}
    assert report["Sleepers"]["finished"] == report["Sleepers"]["tasks"]
