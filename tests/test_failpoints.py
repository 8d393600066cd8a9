"""Failpoints: named places where a test can end, stop or disturb a process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mcp_tasks import failpoints
from mcp_tasks.errors import ConfigurationError
from mcp_tasks.failpoints import ACTIONS, NAMES, VARIABLE, FailpointError, arm, failpoint, is_spent


if TYPE_CHECKING:
    from collections.abc import Iterator


SOURCE = Path(failpoints.__file__).parent
POINT = re.compile(r'"([a-z]+\.(?:before|after|between)[a-z_]*)"')
posix = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    """Leave nothing armed behind."""
    yield
    arm("")


def test_every_name_is_passed_somewhere_in_the_code_and_no_other_is() -> None:
    """A name that is nowhere would be a test of nothing."""
    passed = {
        name
        for path in SOURCE.rglob("*.py")
        if path.name != "failpoints.py"
        for name in POINT.findall(path.read_text(encoding="utf-8"))
    }

    assert passed == NAMES


def test_nothing_happens_unless_asked_for() -> None:
    """In production no variable is set, and every place is only passed."""
    for name in NAMES:
        failpoint(name)


def test_the_action_happens_once_at_the_nth_time() -> None:
    """Later passages are those of the recovery, which has to get through."""
    arm("hb.before:raise:3")
    failpoint("hb.before")
    failpoint("hb.after")
    failpoint("hb.before")
    assert not is_spent()
    with pytest.raises(FailpointError, match=r"hb\.before"):
        failpoint("hb.before")
    assert is_spent()
    failpoint("hb.before")


def test_delay_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """And then goes on as if nothing had been."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    arm("hb.before:delay")
    failpoint("hb.before")
    assert slept == [1.0]


@pytest.mark.parametrize(
    "spec",
    ["hb.early:kill:1", "hb.before:die:1", "hb.before", "hb.before:kill:0", "hb.before:kill:1:2"],
)
def test_what_does_not_exist_is_refused(spec: str) -> None:
    """A soak with a slip of the pen in it would find no fault in a week."""
    with pytest.raises(ConfigurationError, match="name:action:nth"):
        arm(spec)


def test_a_server_with_a_bad_variable_does_not_start() -> None:
    """It is read when the module is imported."""
    ended = _run("import mcp_tasks.store", "nothing:kill:1")
    assert ended.returncode == 1
    assert "name:action:nth" in ended.stderr
    for action in sorted(ACTIONS):
        assert action in ended.stderr


@posix
def test_kill_ends_the_process_as_sigkill_does() -> None:
    """Nothing of it runs any more: no handler, no `finally`."""
    code = (
        "import atexit; from mcp_tasks.failpoints import failpoint\n"
        "atexit.register(print, 'said goodbye')\n"
        "try: failpoint('run.before_body')\nfinally: print('tidied up')"
    )
    ended = _run(code, "run.before_body:kill:1")
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "")
    assert "MCP_TASKS_FAILPOINT is set: run.before_body:kill:1" in ended.stderr


@posix
def test_stop_freezes_the_process_until_it_is_woken() -> None:
    """Whoever started it sees that it stopped, and sends SIGCONT."""
    child = subprocess.Popen(
        [sys.executable, "-c", "from mcp_tasks.failpoints import failpoint as f; f('hb.after')"],
        env={**os.environ, VARIABLE: "hb.after:stop"},
    )
    try:
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        child.send_signal(signal.SIGCONT)
        assert child.wait(20) == 0
    finally:
        child.kill()
        child.wait()


def _run(code: str, spec: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, VARIABLE: spec},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
