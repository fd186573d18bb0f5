"""What a client can do that was made with the official A2A SDK when version 0.3 of the protocol was the newest.

    client.py WORKSPACE_URL WHAT_THE_AGENT_SAYS [alone]

The agent is one of those that count; with `alone` it is one that only talks. The bearer is in TOKEN. Prints a line for
each thing that went as it should; ends with an error at the first that did not.
"""

import asyncio
import os
import sys
import time

import httpx
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory, create_text_message_object
from a2a.client.errors import A2AClientJSONRPCError
from a2a.types import Task, TaskIdParams, TaskQueryParams, TaskState
from a2a.utils import get_message_text

ENDLESS = "count to 100000"


def held(what: str) -> None:
    print(f"older {what}", flush=True)


def texts(task: Task) -> list[str]:
    return [part.root.text for artifact in task.artifacts or [] for part in artifact.parts]


async def main(workspace: str, said: str, alone: bool) -> None:
    headers = {"Authorization": f"Bearer {os.environ['TOKEN']}"}
    async with httpx.AsyncClient(headers=headers, timeout=30) as http:
        card = await A2ACardResolver(http, workspace).get_agent_card()
        assert card.url == f"{workspace}/a2a", card

        def client(**how: bool):
            return ClientFactory(ClientConfig(httpx_client=http, **how)).create(card)

        def send(how, text: str):
            return how.send_message(create_text_message_object(content=text))

        waiting, polling = client(streaming=False), client(streaming=False, polling=True)
        answers = [answer async for answer in send(waiting, "hi")]
        assert [get_message_text(it) for it in answers] == [said], answers
        held("send")
        if alone:
            return

        [(task, _)] = [answer async for answer in send(waiting, "count to 3")]
        assert task.status.state == TaskState.completed and texts(task) == ["1", "2", "3"], task
        held("task")

        again = await waiting.get_task(TaskQueryParams(id=task.id))
        assert again.id == task.id and texts(again) == texts(task), again
        try:
            await waiting.get_task(TaskQueryParams(id="nobody-knows-it"))
        except A2AClientJSONRPCError as error:
            assert error.error.code == -32001, error
        else:
            raise AssertionError("a task was found that nobody began")
        held("get")

        times = []
        async for task, _ in send(client(streaming=True), "count to 5"):
            times.append(time.monotonic())
        assert task.status.state == TaskState.completed and len(texts(task)) == 5, task
        assert times[-1] - times[0] > 0.3, times
        held("stream")

        [(task, _)] = [answer async for answer in send(polling, ENDLESS)]
        ended = await waiting.cancel_task(TaskIdParams(id=task.id))
        assert ended.status.state == TaskState.canceled, ended
        again = await waiting.get_task(TaskQueryParams(id=task.id))
        assert again.status.state == TaskState.canceled, again
        held("cancel")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:] == ["alone"]))
