"""Files in folders and object stores, through fsspec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fgvc_cli.errors import FgvcError


def is_url(text: str) -> bool:
    """Return whether a place is a URL, such as s3://bucket/folder, and not a folder."""
    return "://" in text


def expanded(text: str) -> str:
    """Return a URL as it is, and a folder as an absolute path."""
    return text if is_url(text) else str(Path(text).expanduser().absolute())


def filesystem(base: str) -> tuple[Any, str]:
    """Return the file system of a folder or URL, and the path in it.

    Raises:
        FgvcError: the package for this kind of URL is not installed, or there is none.
    """
    import fsspec

    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(base)
        return found
    except ImportError as error:
        raise FgvcError(f'{base}: {error}; pip install "fgvc-cli[remote]"') from error
    except ValueError as error:
        raise FgvcError(f"{base}: {error}") from error
