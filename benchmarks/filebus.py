"""What cfnshm replaces, in Python: one JSON file per message, as people write it.

    python benchmarks/filebus.py [N]

sends N messages and receives them, in one process, and prints one JSON line. Written as such buses
are: json.dump into a temporary file, os.replace into the receiver's inbox, os.listdir to look for
mail. No fsync (nobody has it), a sequence number in the name so that the order is right, uuid4 so
that ids do not collide. It is the best case of its kind: one process, nothing else running, and no
time lost between two polls.
"""

import json
import os
import shutil
import sys
import tempfile
import time
import uuid

POLL_SECONDS = 0.05


class FileBus:
    """A directory with one inbox directory per agent."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.sequence = 0

    def inbox(self, agent: str) -> str:
        return os.path.join(self.base, agent, "inbox")

    def register(self, agent: str) -> None:
        os.makedirs(self.inbox(agent), exist_ok=True)

    def send(self, sender: str, to: str, kind: str, payload: object) -> str:
        self.sequence += 1
        message = {
            "msg_id": str(uuid.uuid4()),
            "from": sender,
            "to": to,
            "type": kind,
            "sequence": self.sequence,
            "timestamp": time.time(),
            "payload": payload,
        }
        name = f"{self.sequence:012d}-{message['msg_id']}.json"
        temporary = os.path.join(self.base, to, name + ".tmp")
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(message, file)
        os.replace(temporary, os.path.join(self.inbox(to), name))
        return message["msg_id"]

    def take(self, agent: str) -> list[dict]:
        """All messages of the inbox, oldest first; their files are removed."""
        messages = []
        inbox = self.inbox(agent)
        for name in sorted(os.listdir(inbox)):
            path = os.path.join(inbox, name)
            with open(path, encoding="utf-8") as file:
                messages.append(json.load(file))
            os.unlink(path)
        return messages

    def receive(self, agent: str, timeout: float) -> list[dict]:
        """Polls until there is mail; [] after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not (messages := self.take(agent)):
            if time.monotonic() >= deadline:
                return []
            time.sleep(POLL_SECONDS)
        return messages


def rate(n: int) -> float:
    """Messages per second of one process that sends and receives n messages, by batches of 100."""
    folder = "/dev/shm" if os.path.isdir("/dev/shm") else None
    base = tempfile.mkdtemp(prefix="filebus.", dir=folder)
    try:
        bus = FileBus(base)
        bus.register("receiver")
        received = 0
        begun = time.perf_counter()
        while received < n:
            # Batches keep the directory as small as a reader that keeps up would.
            batch = min(100, n - received)
            for i in range(batch):
                bus.send("sender", "receiver", "task", {"n": received + i})
            received += len(bus.receive("receiver", timeout=1))
        return received / (time.perf_counter() - begun)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def bare_rate(n: int) -> float:
    """The same without JSON, ids and names: 64 bytes into a file, renamed, read, removed. The floor of every
    bus that is made of files."""
    base = tempfile.mkdtemp(prefix="filebus.", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    inbox, temporary, body = os.path.join(base, "inbox"), os.path.join(base, "new"), b"x" * 64
    os.mkdir(inbox)
    try:
        begun = time.perf_counter()
        for first in range(0, n, 100):
            for i in range(first, min(first + 100, n)):
                fd = os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600)
                os.write(fd, body)
                os.close(fd)
                os.rename(temporary, f"{inbox}/{i:012d}")
            for name in sorted(os.listdir(inbox)):
                fd = os.open(f"{inbox}/{name}", os.O_RDONLY)
                assert os.read(fd, 4096) == body
                os.close(fd)
                os.unlink(f"{inbox}/{name}")
        return n / (time.perf_counter() - begun)
    finally:
        shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    if len(sys.argv) > 2 or (len(sys.argv) == 2 and not sys.argv[1].isdigit()):
        sys.exit(__doc__)
    count = int(sys.argv[1]) if len(sys.argv) == 2 else 2000
    print(json.dumps({"messages": count, "messages_per_second": round(rate(count))}))
