"""`python -m peftmark` is `peftmark`."""

import os
import sys
from contextlib import suppress

if __name__ == "__main__":
    # `python -m` puts the working directory first, where a user's file may be named like a module,
    # such as statistics.py. Metrics of one's own are found there all the same.
    with suppress(FileNotFoundError):  # a folder that was removed under the shell's feet
        if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:
            del sys.path[0]
    from peftmark.core.interpreter import start_afresh

    start_afresh()  # before anything is loaded that a switch of Python could stop
    from peftmark.cli.parser import main

    main()
