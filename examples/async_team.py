"""A coordinator asks a team of ten asyncio agents at once, in one process for brevity."""

import asyncio

from cfnshm import AsyncBus
from cfnshm.testing import temp_bus_name


async def agent(bus_name: str, name: str) -> None:
    async with AsyncBus(bus_name, agent=name, team="counters") as bus:
        async for message in bus:
            if message.type == "stop":
                return
            await bus.reply(message, len(message.body))


async def main() -> None:
    name = temp_bus_name()
    async with AsyncBus(name, agent="coordinator", temporary=True) as bus:
        names = [f"counter-{i}" for i in range(10)]
        team = [asyncio.create_task(agent(name, n)) for n in names]
        await bus.wait_for(*names, timeout=10)
        answers = await asyncio.gather(*(bus.request(n, "x" * i, timeout=10) for i, n in enumerate(names)))
        print([answer.body for answer in answers])
        await bus.broadcast(None, type="stop", priority="control", team="counters")
        await asyncio.gather(*team)


asyncio.run(main())
