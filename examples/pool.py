"""A pool of worker processes that loses nothing when one of them is killed.

The boss sends tasks to the workers' inboxes and waits for answers and deaths at once. A worker that dies is
started again under its name: it finds what the dead one had not acked, and goes on. A task that was under
way when its worker died is done again, never dropped; `message.redelivered` tells the worker so.
"""

import multiprocessing
import os
import signal
from multiprocessing.connection import wait

from cfnshm import Bus, Timeout

TASKS, WORKERS = 100, 4


def worker(bus_name: str, name: str) -> None:
    with Bus(bus_name, agent=name, type="worker") as bus:
        for message in bus:  # asking for the next acks the one before
            if message.type == "stop":
                return
            n = message.body["n"]
            if n == 13 and not message.redelivered:
                os.kill(os.getpid(), signal.SIGKILL)  # somebody kills it, in the middle of a task
            bus.reply(message, {"squared": n**2})


def start(bus_name: str, name: str) -> multiprocessing.Process:
    process = multiprocessing.Process(target=worker, args=(bus_name, name), name=name)
    process.start()
    return process


def main() -> None:
    with Bus("pool", agent="boss", fresh=True, temporary=True) as bus:
        names = [f"worker-{i}" for i in range(WORKERS)]
        for name in names:
            bus.register(name)  # its inbox exists before it runs
        pool = {p.sentinel: p for p in (start(bus.name, name) for name in names)}
        asked = {}
        for n in range(TASKS):
            receipt = bus.send(names[n % WORKERS], {"n": n}, type="square")
            asked[names[n % WORKERS], receipt.sequence] = n
        squares: dict[int, int] = {}
        while len(squares) < TASKS:
            for ready in wait([bus, *pool]):
                if ready is not bus:  # a worker ended: start it again
                    dead = pool.pop(ready)
                    print(f"{dead.name} died ({dead.exitcode}); starting it again")
                    again = start(bus.name, dead.name)
                    pool[again.sentinel] = again
                    continue
                try:
                    while True:
                        message = bus.recv(timeout=0)
                        squares[asked[message.sender, message.correlation_id]] = message.body["squared"]
                except Timeout:
                    pass
        bus.broadcast(None, type="stop")
        for process in pool.values():
            process.join()
    assert squares == {n: n**2 for n in range(TASKS)}
    print(f"{len(squares)} squares, none lost")


if __name__ == "__main__":
    main()
