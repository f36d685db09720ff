"""What a server accepts, and how it refuses the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fgvc_cli.errors import UsageError


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Attributes:
        max_upload: bytes of a request.
        max_images: number of images in a request.
        max_pixels: number of pixels of an image.
        timeout: seconds from the start of a request to its answer.
        queue: number of requests that may wait while another one is computed.

    Raises:
        UsageError: one is not positive (`queue`: negative).
    """

    max_upload: int = 32_000_000
    max_images: int = 16
    max_pixels: int = 50_000_000
    timeout: float = 60.0
    queue: int = 16

    def __post_init__(self) -> None:
        for name in ("max_upload", "max_images", "max_pixels", "timeout"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise UsageError(f"`{name}={value}` must be above 0")
        if self.queue < 0:
            raise UsageError(f"`queue={self.queue}` must be at least 0")


class RefusedError(Exception):
    """A request is refused.

    Attributes:
        status: of the answer.
        message: one line: what happened, and what to do.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status, self.message = status, " ".join(message.split())
