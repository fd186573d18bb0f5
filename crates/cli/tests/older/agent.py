"""An agent made with the official A2A SDK as it was when version 0.3 of the protocol was the newest.

What examples/python-agent/agent.py does, and it knows of no other version.
"""

import asyncio
import os
import re

import uvicorn
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.apps import A2AStarletteApplication
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, Part, TextPart
from a2a.utils import new_agent_text_message, new_task

HOST = "127.0.0.1"
BEAT = 0.1  # seconds from number to number


class Listener(AgentExecutor):
    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        text = context.get_user_input()
        last = re.fullmatch(r"count to (\d+)", text)
        if last is None:
            await event_queue.enqueue_event(new_agent_text_message(f"older agent heard: {text}"))
            return
        task = context.current_task or new_task(context.message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work()
        for number in range(1, int(last[1]) + 1):
            await asyncio.sleep(BEAT)
            part = Part(root=TextPart(text=str(number)))
            await updater.add_artifact([part], artifact_id="numbers", append=number > 1)
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


def main(port: int) -> None:
    card = AgentCard(
        name="older-agent",
        description="Repeats the text of a message, or counts.",
        version="1.0.0",
        url=f"http://{HOST}:{port}/",
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[],
    )
    handler = DefaultRequestHandler(agent_executor=Listener(), task_store=InMemoryTaskStore())
    app = A2AStarletteApplication(agent_card=card, http_handler=handler).build()
    uvicorn.run(app, host=HOST, port=port, log_level="warning")


if __name__ == "__main__":
    main(int(os.environ["PORT"]))
