"""The command snn-compile as a module: python -m snn_compile."""

import sys

from snn_compile.compiler.cli import main

sys.exit(main())
