"""Why something could not be measured, in one line."""

from __future__ import annotations

import re
import signal

from fgvc_cli.devices import is_compile_error, is_out_of_memory
from fgvc_cli.errors import FgvcError
from fgvc_cli.registry.records import cause_of
from fgvc_cli.sizes import bytes_text

ASKED = re.compile(r"tried to allocate ([\d.]+) ?(bytes|[KMGT]i?B)", re.IGNORECASE)
"""In torch's message when memory runs out."""

TERMINATED = 128 + signal.SIGTERM
"""The exit code that `SystemExit` has where SIGTERM asks for an end."""


def let_through(error: BaseException) -> None:
    """Raise what asks the program to end; what a component raised by itself (`sys.exit()` too) is a reason."""
    if isinstance(error, SystemExit) and error.code == TERMINATED:
        raise error


def reason(error: BaseException, batch_size: int, image_size: int) -> str:
    """Say in one line what went wrong.

    Args:
        error: what was raised.
        batch_size, image_size: of what was measured, for what to do when memory ran out.
    """
    if isinstance(error, FgvcError):
        return " ".join(str(error).split())
    if is_out_of_memory(error):
        asked = _asked(error)
        return (
            f"out of memory with batches of {batch_size} images of {image_size} px{asked} (try a smaller --batch-size)"
        )
    if is_compile_error(error):
        return f"--compile failed: {cause_of(error)}"
    return cause_of(error)


def _asked(error: BaseException) -> str:
    """Return how much memory was asked for when there was too little, if torch says so."""
    found = ASKED.search(str(error))
    if found is None:
        return ""
    amount = bytes_text(float(found[1])) if found[2].lower() == "bytes" else f"{found[1]} {found[2]}"
    return f": {amount} more were asked for"
