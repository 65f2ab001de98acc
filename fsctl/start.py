"""`python -m fsctl.start`: ryu-manager with fsctl.app, in an interpreter that does nothing else, and without others' noise.

`fsctl serve` becomes this program. What Ryu and eventlet have to say about their age helps no operator.
"""

from __future__ import annotations

import logging
import sys
import warnings


def main() -> None:
    """Run until stopped; the arguments are ryu-manager's."""
    warnings.simplefilter("ignore")
    last, logging.lastResort = logging.lastResort, None
    import eventlet  # noqa: PLC0415 - before anything else makes locks

    eventlet.monkey_patch()
    from ryu.cmd import manager  # noqa: PLC0415

    logging.lastResort = last
    logging.getLogger("ryu.base.app_manager").setLevel(logging.WARNING)
    manager.main(args=[*sys.argv[1:], "fsctl.app"], prog="ryu-manager")


if __name__ == "__main__":
    main()
