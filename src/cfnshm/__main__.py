"""`python -m cfnshm`: the cold verbs of the command."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
