"""How the commands of this package end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType

from peftmark.core.errors import Exit, Leave, UserError


def exit_code(name: str, work: Callable[[], None]) -> int:
    """Do the work of a command; the code that it ends with.

    Args:
        name: of the command, before what it says of an error.
    """
    signal.signal(signal.SIGTERM, _leave)  # so that what was started ends too
    try:
        work()
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return int(error.code)
    except KeyboardInterrupt as left:
        return int(left.code if isinstance(left, Leave) else Exit.INTERRUPTED)
    return 0


def _leave(number: int, frame: FrameType | None) -> None:
    raise Leave(Exit.TERMINATED)
