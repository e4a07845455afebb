"""Builds `cfnshm._core._lib`: the C core behind cffi's API mode.

The declarations are cut out of csrc/cfnshm.h and the few headers it rests on, so that there is one
definition of every structure and call; the compiler checks them against the headers again.
"""

from __future__ import annotations

import os
import pathlib
import re
import shlex
import subprocess
import sys
import sysconfig
import tempfile

from cffi import FFI

HERE = pathlib.Path(__file__).resolve()
ROOT = HERE.parents[3]
CSRC = ROOT / "csrc"
CORE = ["base", "mem", "sync", "msg", "agent"]
# The twins of the hot verbs are in the stable ABI of CPython with its GIL.
TWINS = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")


def _headers() -> str:
    """The declarations of the public header, without preprocessor lines."""
    text = (CSRC / "cfnshm.h").read_text()
    body = text[text.index("typedef struct cfn_bus cfn_bus_t;") : text.rindex("#endif")]
    body = re.sub(r"/\*.*?\*/", "", body, flags=re.S)
    body = re.sub(r"^#.*$", "", body, flags=re.M)
    return body.replace("cfn_region_t", "struct cfn_region")


def _constants() -> dict[str, int]:
    """Sizes that the declarations need as numbers."""
    layout = (CSRC / "mem" / "layout.h").read_text()
    wanted = ["CFN_LANES", "CFN_CLASSES", "CFN_NAME_BYTES", "CFN_KEY_BYTES", "CFN_SPILL_BYTES"]
    found = {n: int(re.search(rf"#define {n} (\d+)u", layout)[1]) for n in wanted}
    found["CFN_TEXT_LONG_BYTES"] = 8 * int(re.search(r"#define CFN_TEXT_WORDS_LONG (\d+)u", layout)[1])
    found["CFN_PATH_BYTES"] = int(
        re.search(r"#define CFN_PATH_BYTES (\d+)", (CSRC / "mem" / "region.h").read_text())[1]
    )
    found["CFN_COUNTERS"] = 16
    found["CFN_TEXTS"] = 5
    return found


def _struct(header: str, name: str) -> str:
    text = (CSRC / header).read_text()
    found = re.search(rf"typedef struct {name} \{{.*?\}} {name}_t;", text, flags=re.S)
    return re.sub(r"/\*.*?\*/", "", found[0], flags=re.S)


def declarations() -> str:
    parts = [
        "typedef unsigned char bool_;",
        _struct("base/error.h", "cfn_failure"),
        _struct("mem/region.h", "cfn_wish"),
        _struct("mem/layout.h", "cfn_config_shm"),
        _struct("msg/envelope.h", "cfn_outgoing"),
        _struct("agent/registry.h", "cfn_profile"),
        "struct cfn_region;",
        _headers(),
        """
        const cfn_failure_t *cfn_last_failure(void);
        const char *cfn_error_name(int code);
        int cfn_error_exit_status(int code);
        int cfn_region_destroy_path(const char *dir, const char *name);
        int cfn_region_path(const char *dir, const char *name, char *out);
        extern "Python" void cfn_python_finding(void *, const char *, const char *);
        """,
    ]
    text = "\n".join(parts).replace("typedef unsigned char bool_;", "")
    text = text.replace("#define", "//")
    for name, value in _constants().items():
        text = re.sub(rf"\b{name}\b(?=\s*\])", str(value), text)
    return text.replace("#undef", "//")


def across_modules() -> list[str]:
    """The flags with which this compiler optimises over module borders, or none."""
    if COUNTING:
        return []
    flags = ["-O2", "-flto"]
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "a.c").write_text("int b(void); int main(void) { return b(); }\n")
        pathlib.Path(folder, "b.c").write_text("int b(void) { return 0; }\n")
        try:
            for name in "ab":
                subprocess.run(
                    [*compiler, *flags, "-Werror", "-c", f"{name}.c"], cwd=folder, check=True, **QUIET
                )
            subprocess.run(
                [*compiler, *flags, "-Werror", "a.o", "b.o", "-o", "t"], cwd=folder, check=True, **QUIET
            )
            subprocess.run([f"{folder}/t"], check=True)
        except (OSError, subprocess.SubprocessError):
            return []
    return flags


QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
# `make coverage` counts branches as they are written.
COUNTING = "--coverage" in os.environ.get("CFLAGS", "")
FLAGS = ["-std=c11", "-O0" if COUNTING else "-O2", "-fvisibility=hidden", *across_modules()]

ffibuilder = FFI()
ffibuilder.cdef(declarations())
ffibuilder.set_source(
    "cfnshm._core._lib",
    '#include "cfnshm.h"',
    sources=[
        str(path.relative_to(ROOT))
        for folder in [*CORE, *(["python"] if TWINS else [])]
        for path in sorted((CSRC / folder).glob("*.c"))
    ],
    depends=[str(path.relative_to(ROOT)) for path in sorted(CSRC.rglob("*.h"))],
    include_dirs=["csrc"],
    define_macros=[("_GNU_SOURCE", None)],
    extra_compile_args=[*FLAGS, "-Wall", "-Wno-unused-function"],
    extra_link_args=["-pthread", *FLAGS],
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
