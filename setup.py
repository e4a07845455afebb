"""Builds the binding (cffi, stable ABI) and the native command from one set of C sources.

The rest of the project's metadata stands in pyproject.toml.
"""

import os
import pathlib
import subprocess
import sys
import sysconfig
import tempfile
from distutils.ccompiler import new_compiler
from distutils.command.build_scripts import build_scripts
from distutils.sysconfig import customize_compiler

import setuptools  # noqa: F401  (before distutils' commands are imported)
from setuptools import setup

HERE = pathlib.Path(__file__).parent
CORE = ["base", "mem", "sync", "msg", "agent"]
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def sources(*folders: str) -> list[str]:
    return sorted(
        str(path.relative_to(HERE)) for folder in folders for path in (HERE / "csrc" / folder).glob("*.c")
    )


def version() -> str:
    import tomllib

    return tomllib.loads((HERE / "pyproject.toml").read_text())["project"]["version"]


def links_static(compiler) -> bool:
    """A static executable starts in two thirds of the time; not every system can link one."""
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder, "t.c")
        source.write_text("int main(void) { return 0; }\n")
        try:
            objects = compiler.compile([str(source)], output_dir=folder)
            compiler.link_executable(objects, "t", output_dir=folder, extra_postargs=["-static"])
        except Exception:
            return False
        return subprocess.run([os.path.join(folder, "t")], check=False).returncode == 0


class BuildNativeCommand(build_scripts):
    """Compiles the `cfnshm` executable and puts it where a wheel's scripts go."""

    def run(self) -> None:
        compiler = new_compiler(verbose=self.verbose)
        customize_compiler(compiler)
        from _build import FLAGS

        # Beside build_dir, not in it: everything that is in it goes into the wheel as a script.
        objects = compiler.compile(
            sources(*CORE, "cli"),
            output_dir=f"{self.build_dir}-objects",
            include_dirs=[str(HERE / "csrc")],
            macros=[("CFN_VERSION", f'"{version()}"'), ("_GNU_SOURCE", None)],
            extra_preargs=FLAGS,
            extra_postargs=["-pthread"],
        )
        self.mkpath(self.build_dir)
        flags = ["-pthread", *FLAGS] + (["-static"] if links_static(compiler) else [])
        compiler.link_executable(objects, "cfnshm", output_dir=self.build_dir, extra_postargs=flags)
        os.chmod(os.path.join(self.build_dir, "cfnshm"), 0o755)

    def get_source_files(self) -> list[str]:
        return sources(*CORE, "cli")


sys.path.insert(0, str(HERE / "src" / "cfnshm" / "_core"))

setup(
    cffi_modules=["src/cfnshm/_core/_build.py:ffibuilder"],
    scripts=["cfnshm"],  # made by BuildNativeCommand; named so that the command runs
    cmdclass={"build_scripts": BuildNativeCommand},
    options={} if FREE_THREADED else {"bdist_wheel": {"py_limited_api": "cp311"}},
)
