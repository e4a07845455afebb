"""What the tests of the command share: a `Shell` runs real processes on one bus of its own."""

from __future__ import annotations

import json
import os
import pathlib
import shlex
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parent.parent
BASH_DIR = ROOT / "src" / "cfnshm" / "bash"
COMPAT = BASH_DIR / "filebus_compat.sh"
COMMAND = shutil.which("cfnshm")
BASH = shutil.which("bash")
PATIENCE = 60  # seconds after which something hangs

OK, ERROR, USAGE, EMPTY, FULL, UNKNOWN, DEAD, PERMISSION, CORRUPT, FENCED, BUSY, NO_ROOM, NO_BUS = (
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
)  # fmt: skip


class Shell:
    """Runs things on one bus of its own."""

    def __init__(self, name, folder):
        self.name = name
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("CFN_", "CFNSHM_"))}
        self.env |= {"CFNSHM_BUS": name, "TMPDIR": str(folder), "LC_ALL": "C.UTF-8"}
        self.path = pathlib.Path(f"/dev/shm/cfnshm.{os.getuid()}.{name}")
        self.started = []

    def run(self, *args, stdin=b"", exit=OK, env=None, **options):
        done = subprocess.run(
            [COMMAND, *args],
            input=stdin,
            capture_output=True,
            timeout=PATIENCE,
            env=self.env | (env or {}),
            check=False,
            **options,
        )
        assert done.returncode == exit, (args, done.returncode, done.stdout, done.stderr)
        return done

    def out(self, *args, **options):
        return self.run(*args, **options).stdout

    def json(self, *args, **options):
        """The one JSON object that is printed."""
        return json.loads(self.out(*args, "--json", **options))

    def lines(self, *args, **options):
        """NDJSON: each line is parsed by itself."""
        return [json.loads(line) for line in self.out(*args, "--json", **options).splitlines()]

    def agents(self, *names):
        for name in names:
            self.run("register", name)

    def messages(self, agent):
        """What waits, without taking it."""
        return self.lines("inbox", agent)

    def start(self, *args, **options):
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        env = self.env | options.pop("env", {})
        process = subprocess.Popen(list(args), env=env, **options)
        self.started.append(process)
        return process

    def command(self, *args, **options):
        return self.start(COMMAND, *args, **options)

    def reader(self, agent, *options):
        """A process that has taken the inbox of `agent` and waits for messages."""
        self.run("send", agent, "are you there?")
        process = self.command("recv", "--as", agent, "--follow", *options)
        assert process.stdout.readline() == b"are you there?\n"
        # It acks after it has written.
        self.until(lambda: self.messages(agent) == [], "the ack")
        return process

    def until(self, condition, what, seconds=PATIENCE):
        """Asks again and again; the asking is a command, which is waiting enough."""
        deadline = time.monotonic() + seconds
        while not (answer := condition()):
            assert time.monotonic() < deadline, f"waited in vain for {what}"
        return answer

    def agent(self, name):
        return next(a for a in self.lines("list") if a["name"] == name)

    def bash(self, script, *args, exit=OK, env=None):
        done = subprocess.run(
            [BASH, "-c", script, "bash", *args],
            capture_output=True,
            timeout=PATIENCE,
            env=self.env | (env or {}),
            text=True,
            check=False,
        )
        assert done.returncode == exit, (done.returncode, done.stdout, done.stderr)
        return done

    def compat(self, script, **options):
        """A script as it would be after its `source` line was changed."""
        return self.bash(f"set -euo pipefail\nsource {shlex.quote(str(COMPAT))}\n{script}", **options)


def on_a_bus_of_its_own(tmp_path: pathlib.Path) -> Iterator[Shell]:
    """A bus name; whatever is made under it is destroyed, and nothing may be left."""
    shell = Shell(f"t{os.getpid()}-{uuid.uuid4().hex[:12]}", tmp_path)
    yield shell
    for process in shell.started:
        process.kill()
        process.communicate()
    done = subprocess.run(
        [COMMAND, "destroy", "--force", "--json"], env=shell.env, capture_output=True, check=False
    )
    left = [p.name for p in pathlib.Path("/dev/shm").iterdir() if shell.name in p.name]
    assert left == []
    assert done.returncode == OK or b'"NO_BUS"' in done.stdout, done
