"""Run as a module: python -m snn_compile.train.cli."""

import sys

from snn_compile.train.cli import main

sys.exit(main())
