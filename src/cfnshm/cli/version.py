"""`cfnshm version`"""

from __future__ import annotations

import argparse
import json
import platform


def run(arguments: argparse.Namespace) -> int:
    import cffi
    import msgspec
    import numpy

    import cfnshm

    versions = {
        "cfnshm": cfnshm.__version__,
        "python": platform.python_version(),
        "cffi": cffi.__version__,
        "msgspec": msgspec.__version__,
        "numpy": numpy.__version__,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    if arguments.json:
        print(json.dumps(versions))
    else:
        for name, version in versions.items():
            print(f"{name:8} {version}")
    return 0
