"""A client built with the official A2A SDK for Python, for an agent that Ligand keeps.

    client.py http://127.0.0.1:8080/workspaces/ID "count to 5"

It is pointed at the workspace, finds the agent's card there, and talks to the agent through Ligand, which asks for a
bearer: the token in LIGAND_TOKEN.
"""

import asyncio
import os
import sys

import httpx
from a2a.client import ClientConfig, create_client
from a2a.helpers import get_stream_response_text, new_text_message
from a2a.types.a2a_pb2 import Role, SendMessageRequest


async def main(workspace: str, text: str) -> None:
    headers = {"Authorization": f"Bearer {os.environ['LIGAND_TOKEN']}"}
    # A turn takes as long as it takes.
    async with httpx.AsyncClient(headers=headers, timeout=None) as http:
        client = await create_client(workspace, ClientConfig(httpx_client=http))
        message = new_text_message(text, role=Role.ROLE_USER)
        async for event in client.send_message(SendMessageRequest(message=message)):
            if said := get_stream_response_text(event):
                print(said, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
