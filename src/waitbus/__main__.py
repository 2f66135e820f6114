"""``python -m waitbus``: the command line, wherever the package is importable."""

import sys

from waitbus.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
