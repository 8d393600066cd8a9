"""Find a task again, in another process: answer its questions and wait for its result.

`python clients_resume.py SAVED yes`, or `no` to cancel it.
"""

import sys

import anyio
from mcp import Client
from mcp_types import ElicitResult

from mcp_tasks import TaskCancelledError, TaskHandle, TasksClient, reconnecting_http


async def main(saved: str, word: str) -> None:
    server = reconnecting_http("http://127.0.0.1:8000/mcp")
    async with Client(server, extensions=[TasksClient()]) as client:
        handle = TaskHandle.resume(client, saved)
        if word == "no":
            await handle.cancel()
        task = await handle.wait()
        while not task.is_terminal:
            for key, question in task.questions.items():
                print(question["params"]["message"])
                await handle.answer({key: ElicitResult(action="accept", content={"go": True})})
            task = await handle.wait()
        try:
            result = await handle.result()
        except TaskCancelledError as error:
            print(error)
        else:
            print(result.structured_content)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2])
