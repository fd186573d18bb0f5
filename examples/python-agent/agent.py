"""An agent server built with the official A2A SDK for Python.

It repeats what it hears. Asked to "count to 5" it counts, as a task: with an artifact that grows, which can be watched,
looked up and cancelled.

It knows nothing of Ligand. Ligand starts it with PORT set, waits until it listens there, and passes messages on
to `POST /`. That is the whole agreement, so any A2A server can take this one's place.
"""

import asyncio
import os
import re

import uvicorn
from a2a.helpers import new_task_from_user_message, new_text_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types.a2a_pb2 import AgentCapabilities, AgentCard, AgentInterface, AgentSkill
from starlette.applications import Starlette

HOST = "127.0.0.1"  # only the process beside it may call: it is the one that checks who is asking


BEAT = 0.1  # seconds from number to number


class Listener(AgentExecutor):
    """Repeats what it heard, or counts. Replace `execute` to do something useful."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        text = context.get_user_input()
        if last := re.fullmatch(r"count to (\d+)", text):
            await self.count(int(last[1]), context, event_queue)
            return
        # One Message ends the turn at once.
        reply = new_text_message(f"python agent heard: {text}", context_id=context.context_id)
        await event_queue.enqueue_event(reply)

    async def count(self, last: int, context: RequestContext, event_queue: EventQueue) -> None:
        """Longer work publishes a Task, and then what becomes of it."""
        task = context.current_task or new_task_from_user_message(context.message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work()
        for number in range(1, last + 1):
            # Whoever cancels the task interrupts this.
            await asyncio.sleep(BEAT)
            await updater.add_artifact(
                [new_text_part(str(number))],
                artifact_id="numbers",
                append=number > 1,
                last_chunk=number == last,
            )
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Says that it was cancelled; the SDK interrupts `execute`."""
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


def card(url: str) -> AgentCard:
    """Who it is and how to talk to it, for anybody who asks."""
    return AgentCard(
        name="python-agent",
        description="Repeats the text of a message, or counts.",
        version="1.0.0",
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        supported_interfaces=[
            AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version="1.0"),
            AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version="0.3"),
        ],
        skills=[
            AgentSkill(
                id="repeat",
                name="Repeat",
                description="Says what it heard.",
                tags=["text"],
                examples=["hi"],
            ),
            AgentSkill(
                id="count",
                name="Count",
                description="Counts aloud, as a task.",
                tags=["text", "task"],
                examples=["count to 5"],
            ),
        ],
    )


def application(url: str) -> Starlette:
    """`GET /.well-known/agent-card.json` and `POST /`."""
    about = card(url)
    handler = DefaultRequestHandler(
        agent_executor=Listener(), task_store=InMemoryTaskStore(), agent_card=about
    )
    return Starlette(
        routes=[
            *create_agent_card_routes(about),
            # A request that names no version speaks 0.3 (`message/send`); 1.0 says so in a header.
            *create_jsonrpc_routes(handler, "/", enable_v0_3_compat=True),
        ]
    )


if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8000"))
    uvicorn.run(application(f"http://{HOST}:{port}/"), host=HOST, port=port, log_level="warning")
