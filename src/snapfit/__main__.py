"""`python -m snapfit`: the command line."""

import sys

from snapfit.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
