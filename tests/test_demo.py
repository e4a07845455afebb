"""The demo at a small size: everything delivered, every total right, nothing left."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest


@pytest.mark.timeout(180)
def test_small_demo():
    command = shutil.which("cfnshm")
    assert command, "the cfnshm command is not installed"
    done = subprocess.run(
        [command, "demo", "--coordinators", "2", "--workers", "5", "--json"],
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["problems"] == []
    assert [r["delivered"] for r in report["runs"]] == [100.0, 100.0]
    assert report["runs"][0]["agents"] == 13
    assert report["files"] > 500
    assert report["file_bus"]["expected"] == 30
