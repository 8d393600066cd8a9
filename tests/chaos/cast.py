"""The processes of a cycle: one that left tasks behind, one that is struck, one that lives on.

The subject passes every failpoint there is: it takes over what the victim left, creates, claims,
runs, asks, answers and cancels, is asked and told things by the survivor, and drains.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace
from tests.chaos.scene import EXTERNAL, ONCE, RERUN, RESUMABLE, Scene, until

from mcp_tasks import failpoints
from mcp_tasks.errors import MCPTasksError
from mcp_tasks.runner.worker import encode_worker, read_worker


if TYPE_CHECKING:
    from collections.abc import Awaitable


ANONYMOUS = "anonymous"


async def victim(job: dict[str, Any]) -> None:
    """Leave tasks of every kind behind, and a full roster of tasks that have ended."""
    scene = Scene(job)
    await scene.runner.start()
    assert scene.runner.worker is not None
    scene.say("started", worker=scene.runner.worker.name)
    for tool, policy in (("hold", ONCE), ("hold", RERUN), ("asks", ONCE)):
        await scene.create(tool, policy)
    await scene.asked(await scene.create("asks", RESUMABLE))
    full = [
        await scene.create("none", EXTERNAL, here=False, owner=ANONYMOUS),
        await scene.create("none", EXTERNAL, here=False, owner=ANONYMOUS),
    ]
    for task_id in full:
        await scene.store.complete_with_result(ANONYMOUS, task_id, {})
    os.kill(os.getpid(), signal.SIGKILL)


async def survivor(job: dict[str, Any]) -> None:
    """Run whatever waits, and ask things of the subject, until SIGTERM."""
    scene = Scene(job)
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    await scene.runner.start()
    assert scene.runner.worker is not None
    scene.say("started", worker=scene.runner.worker.name)
    tasks = [
        await _try(scene, scene.create("asks", ONCE)),
        await _try(scene, scene.create("hold", ONCE)),
        await _try(scene, scene.create("asks", RESUMABLE)),
    ]
    if None not in tasks:
        await scene.asked(tasks[0])
        await scene.asked(tasks[2])
        scene.say("ready", tasks=tasks)

    async def serve() -> None:
        line = await scene.heard("serve me", "subject", 60)
        assert line is not None
        parked, asking, held = line["tasks"]
        await _try(scene, scene.answer(asking))
        await _try(scene, scene.cancel(held))
        await _try(scene, scene.answer(parked))
        if job["usurp"]:
            await _try(scene, _usurp(scene, line["worker"]))

    serving = asyncio.create_task(serve())
    await over.wait()
    serving.cancel()
    await scene.runner.stop()
    await scene.store.close()


async def subject(job: dict[str, Any]) -> None:
    """Do everything that a server does, armed."""
    scene = Scene(job)
    failpoints.arm(job["failpoint"])
    await scene.runner.start()
    assert scene.runner.worker is not None
    scene.say("started", worker=scene.runner.worker.name)
    await _try(scene, _gone(scene, job["victim"]))
    scene.say("reaped")
    await _own(scene)
    await _of_others(scene)
    await _edges(scene)
    if job["failpoint"].startswith(("hb.", "fence.")):  # which come by themselves
        await until(_is_spent, 3)
    scene.say("draining")
    await _try(scene, scene.runner.stop())
    await _try(scene, scene.store.close())
    scene.say("over", fired=failpoints.is_spent())


async def _own(scene: Scene) -> None:
    """Run tasks: born here, claimed here, and with word from another process."""
    parked = await _try(scene, scene.create("asks", RESUMABLE))
    asking = await _try(scene, scene.create("asks", ONCE))
    held = await _try(scene, scene.create("hold", ONCE))
    await _try(scene, scene.create("hold", RERUN))  # until the drain
    quick = [
        await _try(scene, scene.create("quick", ONCE)),
        await _try(scene, scene.create("quick", RERUN)),
        await _try(scene, scene.create("steps", RESUMABLE)),
        await _try(scene, scene.create("quick", ONCE, here=False)),
        await _try(scene, scene.create("steps", RESUMABLE, here=False)),
    ]
    for task_id in quick:
        if task_id is not None:
            await _try(scene, scene.ended(task_id))
    if parked is None or asking is None or held is None:
        return
    await _try(scene, scene.asked(parked))
    await _try(scene, scene.asked(asking))
    name = scene.runner.worker.name if scene.runner.worker is not None else ""
    scene.say("serve me", tasks=[parked, asking, held], worker=name)
    for task_id in (asking, held, parked):
        await _try(scene, scene.ended(task_id))


async def _of_others(scene: Scene) -> None:
    """Answer and cancel tasks that another process runs."""
    line = await scene.heard("ready", "survivor", 10)
    if line is None:
        return
    asking, held, parked = line["tasks"]
    await _try(scene, scene.answer(asking))
    await _try(scene, scene.cancel(held))
    await _try(scene, scene.answer(parked))


async def _edges(scene: Scene) -> None:
    """Find the end of a life, clean up, and push what has ended from a full roster."""
    life = timedelta(milliseconds=20)
    short = await _try(scene, scene.create("none", EXTERNAL, here=False, ttl=life))
    await asyncio.sleep(0.03)
    if short is not None:
        await _try(scene, scene.ended(short))
    await _try(scene, scene.store.cleanup_expired())
    await _try(scene, scene.create("none", EXTERNAL, here=False, owner=ANONYMOUS))


async def _is_spent() -> bool:
    return failpoints.is_spent()


async def _gone(scene: Scene, worker: str) -> None:
    """Wait until a dead worker was taken over."""

    async def is_gone() -> bool:
        return await read_worker(scene.store, worker) is None

    await until(is_gone, 5)


async def _usurp(scene: Scene, worker: str) -> None:
    """Declare a live worker dead."""
    while True:
        found = await read_worker(scene.store, worker)
        if found is None:
            return
        record, version = found
        taken = encode_worker(replace(record, state="taken"))
        with suppress(MCPTasksError):  # it beats meanwhile
            await scene.store.backend.put_if_version(
                scene.store.keys.worker(worker), taken, version
            )
            return


async def _try(scene: Scene, act: Awaitable[Any]) -> Any:
    """Do something that may fail, as a server does that goes on after an error."""
    try:
        return await act
    except Exception as error:  # noqa: BLE001 - whatever was raised; the oracle looks at the store
        scene.say("failed", error=f"{type(error).__name__}: {error}")
        return None
