"""A data set that is being checked: opened from a folder of the kit's own, or where its files lie."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from fgvc_cli.contracts import Dataset, DatasetRequest, Provision
from fgvc_cli.contracts.dataset import no_note
from fgvc_cli.data.opening import request_for
from fgvc_cli.errors import FgvcError
from fgvc_cli.specs import DatasetSpec
from fgvc_cli.testing.check import ContractBroken, NotApplicable
from fgvc_cli.testing.subject import Subject
from fgvc_cli.testing.tiny.images import write_folder, write_table

TABLES = (".csv", ".tsv")
"""Endings of the tables that the kit can write."""


@dataclass(frozen=True)
class DatasetSubject:
    """A data set. Named ones are looked for where the host looks (FGVC_DATA)."""

    subject: Subject

    @property
    def spec(self) -> DatasetSpec:
        """What its plugin says of it."""
        return cast(DatasetSpec, self.subject.component.spec)

    @property
    def takes_data(self) -> bool:
        """Whether it is made from what `--data` names."""
        return self.spec.reads_folder or bool(self.spec.reads_files)

    def request(self) -> DatasetRequest:
        """Return what the host would tell it, notes left out."""
        return replace(request_for(self._data if self.takes_data else None, 0), note=no_note)

    def open(self, request: DatasetRequest | None = None) -> Dataset:
        """Open it, with the network out of reach."""
        options = self.subject.options()
        with _no_network():
            dataset: Dataset = self.subject.make(Dataset, request=request or self.request(), options=options)
        return dataset

    @cached_property
    def dataset(self) -> Dataset:
        """The data set, opened.

        Raises:
            NotApplicable: its files are not here.
        """
        provision = self.provision(self.request())
        if provision is not None and provision.missing():
            name = self.spec.name
            raise NotApplicable(
                f"its files are not here ({provision.folder}): fgvc data prepare {name}, then check again"
            )
        try:
            return self.open()
        except FgvcError as error:
            own = " with what the kit wrote for it; name another with data=... or --data" if self._is_own else ""
            raise NotApplicable(f"it does not open here{own}: {error}") from None

    @property
    def _is_own(self) -> bool:
        return self.takes_data and self.subject.data is None

    def provision(self, request: DatasetRequest) -> Provision | None:
        """Return what it says of the files that it needs; a function that makes a data set has nothing to say."""
        ask = getattr(self.subject.target(), "provision", None)
        return None if ask is None else ask(request, self.subject.options())

    def empty(self, folder: Path) -> DatasetRequest:
        """Return a request by which nothing is there."""
        return replace(
            self.request(),
            root=folder / "data",
            cache=folder / "cache",
            folder=folder / "none" if self.takes_data else None,
        )

    @cached_property
    def _data(self) -> Path:
        """What it is made from: as given, or of the kit's own."""
        if self.subject.data is not None:
            return self.subject.data
        folder = Path(self._own.name)
        if self.spec.reads_folder:
            write_folder(folder)
            return folder
        endings = [ending for ending in self.spec.reads_files if ending in TABLES]
        if not endings:
            kinds = " or ".join(self.spec.reads_files)
            raise NotApplicable(f"the kit cannot write {kinds} files: name one (contract(..., data=...), --data)")
        return write_table(folder, endings[0])

    @cached_property
    def _own(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="fgvc-check-")


@contextmanager
def _no_network() -> Iterator[None]:
    """Let no connection be made; one that is tried breaks the contract, whatever the data set makes of the error."""
    tried: list[str] = []
    real = socket.getaddrinfo, socket.socket.connect

    def refuse(*arguments: Any, **_: Any) -> Any:
        tried.append(str(arguments[0] if isinstance(arguments[0], str) else arguments[-1]))
        raise OSError("a data set downloads nothing when it is opened")

    socket.getaddrinfo, socket.socket.connect = refuse, refuse  # type: ignore[method-assign]
    try:
        yield
    finally:
        socket.getaddrinfo, socket.socket.connect = real  # type: ignore[method-assign]
        if tried:
            raise ContractBroken(
                "no connection when a data set is opened",
                f"it reaches for {tried[0]}",
                "say in provision what there is to download: fgvc data prepare does it",
            )
