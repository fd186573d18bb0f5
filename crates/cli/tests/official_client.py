"""What a client made with the official A2A SDK can do with an agent that it reaches through Ligand.

    official_client.py WORKSPACE_URL VERSION ...

The agent is examples/python-agent/agent.py, or one that only echoes (ECHO in the environment says what). The bearer is
in TOKEN. Prints a line for each thing that went as it should; ends with an error at the first that did not.
"""

import asyncio
import os
import sys
import time

import httpx
from a2a.client import A2ACardResolver, Client, ClientConfig, ClientFactory
from a2a.client.errors import AgentCardResolutionError
from a2a.helpers import get_artifact_text, get_message_text, new_text_message
from a2a.types.a2a_pb2 import (
    AgentCard,
    CancelTaskRequest,
    GetTaskRequest,
    Role,
    SendMessageRequest,
    SubscribeToTaskRequest,
    Task,
    TaskState,
)
from a2a.utils.errors import TaskNotFoundError

ENDLESS = "count to 100000"


def sentence(text: str) -> SendMessageRequest:
    return SendMessageRequest(message=new_text_message(text, role=Role.ROLE_USER))


def is_in(task: Task, state: str) -> bool:
    return task.status.state == TaskState.Value(f"TASK_STATE_{state}")


async def only(events) -> object:
    """The one event of an answer that is no stream."""
    found = [event async for event in events]
    assert len(found) == 1, found
    return found[0]


class Checks:
    """One version of the protocol, with a client for each way of waiting."""

    def __init__(self, http: httpx.AsyncClient, card: AgentCard, version: str) -> None:
        def client(**how: bool) -> Client:
            return ClientFactory(ClientConfig(httpx_client=http, **how)).create(card)

        self.version = version
        self.waiting = client(streaming=False)
        self.polling = client(streaming=False, polling=True)
        self.streaming = client(streaming=True)

    def held(self, what: str) -> None:
        print(f"{self.version} {what}", flush=True)

    async def send(self, said: str) -> None:
        answer = await only(self.waiting.send_message(sentence("hi")))
        assert get_message_text(answer.message) == said, answer
        self.held("send")

    async def task(self) -> str:
        task = (await only(self.waiting.send_message(sentence("count to 3")))).task
        assert is_in(task, "COMPLETED"), task
        assert [get_artifact_text(it) for it in task.artifacts] == ["1\n2\n3"], task
        self.held("task")
        return task.id

    async def get(self, task_id: str) -> None:
        task = await self.waiting.get_task(GetTaskRequest(id=task_id))
        assert task.id == task_id and is_in(task, "COMPLETED"), task
        try:
            await self.waiting.get_task(GetTaskRequest(id="nobody-knows-it"))
        except TaskNotFoundError:
            self.held("get")
        else:
            raise AssertionError("a task was found that nobody began")

    async def stream(self) -> None:
        numbers, states, times = [], [], []
        async for event in self.streaming.send_message(sentence("count to 5")):
            times.append(time.monotonic())
            if event.HasField("artifact_update"):
                numbers.append(get_artifact_text(event.artifact_update.artifact))
            elif event.HasField("status_update"):
                states.append(event.status_update.status.state)
        assert numbers == ["1", "2", "3", "4", "5"], numbers
        assert states[-1] == TaskState.TASK_STATE_COMPLETED, states
        # Number by number, and not all of them at the end.
        assert times[-1] - times[0] > 0.3, times
        self.held("stream")

    async def cancel(self) -> None:
        begun = (await only(self.polling.send_message(sentence(ENDLESS)))).task
        now = await self.waiting.get_task(GetTaskRequest(id=begun.id))
        assert is_in(now, "WORKING") or is_in(now, "SUBMITTED"), now
        ended = await self.waiting.cancel_task(CancelTaskRequest(id=begun.id))
        assert is_in(ended, "CANCELED"), ended
        now = await self.waiting.get_task(GetTaskRequest(id=begun.id))
        assert is_in(now, "CANCELED"), now
        self.held("cancel")

    async def cancel_a_stream(self) -> None:
        last, task_id = None, None
        async for event in self.streaming.send_message(sentence(ENDLESS)):
            if event.HasField("artifact_update") and task_id is None:
                task_id = event.artifact_update.task_id
                await self.waiting.cancel_task(CancelTaskRequest(id=task_id))
            last = event
        assert last.status_update.status.state == TaskState.TASK_STATE_CANCELED, last
        self.held("cancel a stream")

    async def subscribe(self) -> None:
        begun = (await only(self.polling.send_message(sentence("count to 10")))).task
        last = None
        async for event in self.streaming.subscribe(SubscribeToTaskRequest(id=begun.id)):
            last = event
        assert last.status_update.status.state == TaskState.TASK_STATE_COMPLETED, last
        self.held("subscribe")

    async def run(self, echo: str | None) -> None:
        await self.send(echo or "python agent heard: hi")
        if echo is None:
            await self.get(await self.task())
            await self.stream()
            await self.cancel()
            await self.cancel_a_stream()
            await self.subscribe()


async def refuse(workspace: str) -> None:
    """Nobody finds an agent without a bearer."""
    async with httpx.AsyncClient() as http:
        try:
            await A2ACardResolver(http, workspace).get_agent_card()
        except AgentCardResolutionError as error:
            assert error.status_code == 401, error
        else:
            raise AssertionError("a card was shown to a stranger")


async def main(workspace: str, versions: list[str]) -> None:
    await refuse(workspace)
    headers = {"Authorization": f"Bearer {os.environ['TOKEN']}"}
    async with httpx.AsyncClient(headers=headers, timeout=30) as http:
        for version in versions:
            card = await A2ACardResolver(http, workspace).get_agent_card()
            places = {it.url for it in card.supported_interfaces}
            assert places == {f"{workspace}/a2a"}, card
            spoken = [it for it in card.supported_interfaces if it.protocol_version.startswith(version)]
            assert spoken, card
            del card.supported_interfaces[:]
            card.supported_interfaces.extend(spoken)
            await Checks(http, card, version).run(os.environ.get("ECHO"))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
