"""Run as a module: python -m snn_compile.runtime.cli."""

import sys

from snn_compile.runtime.cli import main

sys.exit(main())
