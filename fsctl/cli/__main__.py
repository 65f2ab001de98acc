"""`python -m fsctl.cli` is `fsctl`."""

from __future__ import annotations

import sys

from fsctl.cli.main import main

sys.exit(main())
