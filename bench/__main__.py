"""Run the benchmarks: `python -m bench [--quick] [--only PART]…`, from the repository's root.

Prints a table and writes `build/bench.json`; what is not a ratio of two rates goes into
`build/bench-extra.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import cas, extras, mutation, pages, round_trip
from bench.dynamodb import measure_dynamodb
from bench.postgres import measure_postgres
from bench.redis import measure_redis


if TYPE_CHECKING:
    from collections.abc import Sequence


PARTS = ("round_trip", "backend_cas", "store_mutation", "pages", "extras")
_SWAPS = (cas.measure_sqlite, measure_redis, measure_postgres, measure_dynamodb)
_MANY = {"sqlite": 100_000, "redis": 100_000, "postgres": 100_000, "dynamodb": 20_000}


async def run(parts: Sequence[str], out: Path, *, quick: bool) -> None:
    """Run some of the parts and write what they gave.

    Args:
        parts: Names out of `PARTS`.
        out: A folder for the files; databases too, so that it is the same disk as always.
        quick: A second or two in all, to see that everything works. The figures mean little.
    """
    seconds = 0.2 if quick else 1.5
    rounds = 1 if quick else 7
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=out, prefix="bench-") as name:
        folder = Path(name)
        if "round_trip" in parts:
            report["round_trip"] = await _round_trips(folder, rounds=rounds, seconds=seconds)
        if "backend_cas" in parts:
            report["backend_cas"] = await _swaps(folder, rounds=rounds, seconds=seconds)
        if "store_mutation" in parts:
            report["store_mutation_us"] = await _mutation(quick=quick)
        if report:
            _write(out / "bench.json", report)
        extra: dict[str, Any] = {}
        if "pages" in parts:
            extra["Pages"] = await _pages(folder, quick=quick)
        if "extras" in parts:
            extra |= await _extras(folder, quick=quick)
        if extra:
            _write(out / "bench-extra.json", extra)


async def _round_trips(folder: Path, *, rounds: int, seconds: float) -> dict[str, Any]:
    print("Task round trip against a plain call, same server, JSON mode (medians)")
    print("  store         clients ratio(cpu) ratio(rate)  cpu ms  plain ms     /s plain /s polls")
    urls = {"memory": "memory://", "sqlite": f"sqlite:///{(folder / 'tasks.db').as_posix()}"}
    report: dict[str, Any] = {}
    for store, frozen in ((store, frozen) for store in urls for frozen in (False, True)):
        name = f"{store} frozen" if frozen else store
        for row in await round_trip.measure(
            name, urls[store], (1, 16), rounds=rounds, seconds=seconds, frozen=frozen
        ):
            report.setdefault(name, {})[str(row.clients)] = row.row()
            print(
                f"  {name:<13} {row.clients:>7} {row.ratio:>10.3f} {row.rate_ratio:>11.3f}"
                f" {row.task.cpu_ms:>7.3f} {row.plain.cpu_ms:>9.3f} {row.task.per_second:>6.0f}"
                f" {row.plain.per_second:>8.0f} {row.gets:>5.2f}"
            )
    return report


async def _swaps(folder: Path, *, rounds: int, seconds: float) -> dict[str, Any]:
    print("Compare-and-swaps of 1 KB against the same driver, batched by hand (medians)")
    print("  store    callers   ratio       /s    raw /s")
    report: dict[str, Any] = {}
    for measure in _SWAPS:
        for row in await measure(folder, (1, 16, 128), rounds=rounds, seconds=seconds):
            report.setdefault(row.store, {})[str(row.callers)] = row.row()
            print(
                f"  {row.store:<8} {row.callers:>7} {row.ratio:>7.3f} {row.per_second:>8.0f}"
                f" {row.raw_per_second:>9.0f}"
            )
    return report


async def _mutation(*, quick: bool) -> float:
    cost, size = await mutation.measure(rounds=3 if quick else 9, count=500 if quick else 5_000)
    print(f"TaskStore, one mutation of a record of {size} bytes, no I/O: {cost:.1f} µs of CPU")
    return round(cost, 2)


async def _pages(folder: Path, *, quick: bool) -> dict[str, Any]:
    print("A page of 50, by how many records the owner has (medians)")
    print("  store        few    many   ratio  few ms  many ms")
    report: dict[str, Any] = {}
    for store, many in _MANY.items():
        row = await pages.measure_pages(
            folder,
            store,
            few=100 if quick else 1_000,
            many=1_000 if quick else many,
            rounds=20 if quick else 500,
        )
        report[store] = row.row()
        print(
            f"  {store:<8} {row.few:>7} {row.many:>7} {row.many_ms / row.few_ms:>7.3f}"
            f" {row.few_ms:>7.3f} {row.many_ms:>8.3f}"
        )
    return report


async def _extras(folder: Path, *, quick: bool) -> dict[str, Any]:
    steps = await extras.long_task(folder, steps=1_000 if quick else 10_000)
    print(
        f"A task of {steps.steps} steps: {steps.first_ms:.3f} ms of CPU for each of the first,"
        f" {steps.last_ms:.3f} ms for each of the last, ratio {steps.ratio:.2f}"
    )
    large = await extras.large_arguments(
        folder, rounds=1 if quick else 5, seconds=0.3 if quick else 2.0
    )
    print(
        f"A poll of a running task with {large.bytes / 2**20:.1f} MiB of arguments:"
        f" {large.large_ms:.3f} ms of CPU, with none {large.plain_ms:.3f} ms,"
        f" ratio {large.ratio:.2f}"
    )
    asleep = await extras.sleepers(
        folder, tasks=100 if quick else 1_000, seconds=2.0 if quick else 10.0
    )
    print(
        f"{asleep.tasks} tasks asleep at once: {asleep.extra_mib:.1f} MiB over the idle server,"
        f" {asleep.finished} finished"
    )
    again = await extras.restart(folder)
    print(
        f"kill -9 and restart: the task runs again {again.running_after_launch:.2f} s after the"
        f" launch, {again.running_after_ready:+.2f} s from the first answer"
    )
    return extras.rows(steps, large, asleep, again)


def _write(path: Path, report: dict[str, Any]) -> None:
    path.write_text(json.dumps(report, indent=2) + "\n")
    print(f"wrote {path}")


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="see that it works; seconds in all")
    parser.add_argument("--only", action="append", choices=PARTS, help="a part; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("build"), help="where the files go")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    asyncio.run(run(arguments.only or PARTS, arguments.out, quick=arguments.quick))


if __name__ == "__main__":
    main()
