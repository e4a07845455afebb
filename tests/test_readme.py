"""Every snippet of the README and every example runs, and prints what it says it prints."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cfnshm.testing import temp_bus_name

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.S | re.M)


def environment(name):
    return {**os.environ, "CFNSHM_BUS": name}


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.splitlines()[-1][:24])
def test_python_snippets_print_what_they_say(code):
    name = temp_bus_name()
    for known in ("build-42", "build-43", "squares"):
        code = code.replace(f'"{known}"', f'"{name}"')
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    promised = [
        line.split("#", 1)[1].strip() for line in code.splitlines() if "print(" in line and "#" in line
    ]
    assert done.stdout.splitlines() == promised


@pytest.mark.parametrize("session", blocks("console"), ids=lambda session: session.splitlines()[-1][:24])
def test_console_sessions(session, tmp_path):
    commands = [line[2:] for line in session.splitlines() if line.startswith("$ ")]
    expected = [line for line in session.splitlines() if not line.startswith("$ ")]
    done = subprocess.run(
        ["bash", "-c", "\n".join(commands)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        env=environment(temp_bus_name()),
        cwd=tmp_path,
    )
    assert done.stdout.splitlines() == expected


def test_source_line():
    (line,) = blocks("bash")
    name = temp_bus_name()
    script = (
        line
        + "init_message_bus_system; init_message_bus a; init_message_bus b\n"
        + "send_message a b task '{\"n\": 1}' >/dev/null; message_count b; cleanup_message_bus_system\n"
    )
    done = subprocess.run(
        ["bash", "-euc", script], capture_output=True, text=True, timeout=60, env=environment(name)
    )
    assert done.stdout.strip() == "1", done.stderr


def test_the_two_commands_exist():
    assert "```\nmake demo\nmake test\n```" in README
    targets = (ROOT / "Makefile").read_text()
    assert "\ndemo:" in targets
    assert "\ntest:" in targets


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_python_examples(script):
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60,
        env=environment(temp_bus_name()),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_bash_example():
    assert shutil.which("cfnshm")
    done = subprocess.run(
        ["bash", str(ROOT / "examples" / "bash_talk.sh")], capture_output=True, text=True, timeout=60,
        env=environment(temp_bus_name()),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
