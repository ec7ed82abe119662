"""``python -m fewshotseg``: the command ``fewshotseg``."""

import sys

from fewshotseg.cli import main

if __name__ == "__main__":
    sys.exit(main())
