"""Run as a module: python -m snn_compile.compiler.cli."""

import sys

from snn_compile.compiler.cli import main

sys.exit(main())
