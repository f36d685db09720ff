"""What every data set must keep: where its files come from."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from fgvc_cli.contracts import Provision
from fgvc_cli.errors import FgvcError
from fgvc_cli.testing.check import Checks, ContractBroken, NotApplicable, expect
from fgvc_cli.testing.dataset_subject import DatasetSubject

FILES: Checks[DatasetSubject] = Checks()

CHECKSUMS = {"md5": 32, "sha256": 64}
"""Hexadecimal digits of the checksums that can be given."""


@FILES("it says where its images are from", "Every run records it.")
def identity(dataset: DatasetSubject) -> None:
    """identity() has its name and a form in JSON; the name is that of the spec."""
    opened = dataset.dataset
    found = opened.identity()
    try:
        json.dumps(found)
    except (TypeError, ValueError) as error:
        raise ContractBroken(
            "plain values from identity()", str(error), "use text, numbers, lists and dicts"
        ) from error
    expect(
        isinstance(found, dict) and bool(found.get("name")), "identity() to give a name", f"it gives {found}", "add it"
    )
    expect(
        opened.name == dataset.spec.name or dataset.takes_data,
        f"name to be {dataset.spec.name!r}",
        f"{opened.name!r}",
        "set name to what the spec says",
    )


@FILES("it says how its files are had", "`fgvc data prepare` gets what provision names, and tells a person the rest.")
def provision(dataset: DatasetSubject) -> None:
    """What it needs lies below the data root; links are https with checksums; the rest is said in words."""
    request = dataset.request()
    found = dataset.provision(request)
    if found is None:
        raise NotApplicable("it needs no files of its own")
    expect(isinstance(found, Provision), "a Provision (or None)", f"a {type(found).__name__}", "return one")
    below = found.folder == request.root or request.root in found.folder.parents
    expect(below, f"a folder below {request.root}", f"it is {found.folder}", "begin with request.root")
    expect(bool(found.needed), "names of what is needed", "there are none", "name a file without which it is not there")
    expect(bool(found.downloads or found.by_hand), "a link, or words on what to do", "neither is given", "say by_hand")
    for download in found.downloads:
        kind, _, digits = download.checksum.partition(":")
        right = not download.checksum or (kind in CHECKSUMS and len(digits) == CHECKSUMS[kind])
        form = " or ".join(f"'{name}:' and {count} digits" for name, count in CHECKSUMS.items())
        expect(
            right, f"a checksum of the form {form}", f"that of {download.file} is {download.checksum!r}", "correct it"
        )
        expect("://" in download.url, "a link", f"{download.file} has {download.url!r}", "give the whole address")


@FILES("what is not there is said", "A person reads what to put where, or which command gets it.")
def absent(dataset: DatasetSubject) -> None:
    """Where there are no files it raises an FgvcError in one line, and connects to nothing."""
    with tempfile.TemporaryDirectory(prefix="fgvc-check-") as folder:
        request = dataset.empty(Path(folder))
        if not dataset.takes_data and dataset.provision(request) is None:
            raise NotApplicable("it needs no files of its own")
        try:
            dataset.open(request)
        except FgvcError as error:
            expect("\n" not in str(error) and bool(str(error)), "one line", f"{str(error)!r}", "say it in one")
            return
        except ContractBroken:
            raise
        except Exception as error:
            raise ContractBroken(
                "an FgvcError where the files are not there",
                f"it raised {type(error).__name__}: {error}",
                "begin with self.provision(request, options).require(self.name)",
            ) from error
    raise ContractBroken("an FgvcError where the files are not there", "it opens without them", "look for them at once")
