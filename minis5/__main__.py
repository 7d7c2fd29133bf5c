"""`python -m minis5`: the command line, as the command `minis5` has it."""

import sys

from minis5.run.cli import main

sys.exit(main())
