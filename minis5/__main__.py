"""`python -m minis5` runs the command line, as the command `minis5` does."""

import sys

from minis5.run.cli import main

sys.exit(main())
