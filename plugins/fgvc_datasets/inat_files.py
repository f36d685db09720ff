"""What the versions of iNaturalist consist of, and where the published files are.

Links and checksums: https://github.com/visipedia/inat_comp (the page of each year) and torchvision's `INaturalist`.
"""

from __future__ import annotations

from dataclasses import dataclass

from fgvc_cli.contracts import Download

SITE = "https://ml-inat-competition-datasets.s3.amazonaws.com/"


@dataclass(frozen=True)
class Version:
    """One of the yearly datasets.

    Attributes:
        images: folder of the training images, and of all images before 2021; named as torchvision names it.
        published: how many images the official training and validation splits have.
        downloads: links to all of it.
    """

    images: str
    published: dict[str, int]
    downloads: tuple[Download, ...]

    @property
    def needed(self) -> tuple[str, ...]:
        """What must be there."""
        return tuple(name for download in self.downloads for name in download.results)


def _images(path: str, folder: str, md5: str, gigabytes: float) -> Download:
    """Return an archive whose one folder is to be called `folder`."""
    file = f"{folder}.tar.gz"
    return Download(
        f"{SITE}{path}", file, f"md5:{md5}", about=round(gigabytes * 1e9), unpack=folder, strip=1, gives=(folder,)
    )


def _lists(year: str, file: str, md5: str = "", gives: tuple[str, ...] = ()) -> Download:
    """Return an archive of lists; 2018 and 2019 have one of the same name, so that each year has its own folder."""
    folder = f"lists/{year}"
    results = tuple(f"{folder}/{name}" for name in gives or (file.removesuffix(".tar.gz"),))
    checksum = f"md5:{md5}" if md5 else ""
    return Download(f"{SITE}{year}/{file}", f"{year}_{file}", checksum, unpack=folder, gives=results)


VALIDATION_2021 = _images("2021/val.tar.gz", "2021_valid", "f6f6e0e242e3d4c9569ba56400938afc", 8.4)

VERSIONS = {
    "2021": Version(
        "2021_train",
        {"train": 2_686_843, "validation": 100_000},
        (_images("2021/train.tar.gz", "2021_train", "e0526d53c7f7b2e3167b2b43bb2690ed", 224), VALIDATION_2021),
    ),
    "2021_mini": Version(
        "2021_train_mini",
        {"train": 500_000, "validation": 100_000},
        (_images("2021/train_mini.tar.gz", "2021_train_mini", "db6ed8330e634445efc8fec83ae81442", 42), VALIDATION_2021),
    ),
    "2019": Version(
        "2019",
        {"train": 265_213, "validation": 3_030},
        (
            _images("2019/train_val2019.tar.gz", "2019", "c60a6e2962c9b8ccbd458d12c8582644", 74),
            _lists("2019", "train2019.json.tar.gz", "b06a6683537867c0d5c7a45f407a306d"),
            _lists("2019", "val2019.json.tar.gz", "5cc5509b0fe495f1c8c1362612448497"),
            _lists("2019", "categories.json.tar.gz"),
        ),
    ),
    "2018": Version(
        "2018",
        {"train": 437_513, "validation": 24_426},
        (
            _images("2018/train_val2018.tar.gz", "2018", "b1c6952ce38f31868cc50ea72d066cc3", 120),
            _lists("2018", "train2018.json.tar.gz", "bfa29d89d629cbf04d826a720c0a68b0"),
            _lists("2018", "val2018.json.tar.gz", "f2ed8bfe3e9901cdefceb4e53cd3775d"),
            _lists("2018", "categories.json.tar.gz"),
        ),
    ),
    "2017": Version(
        "2017",
        {"train": 579_184, "validation": 95_986},
        (
            _images("2017/train_val_images.tar.gz", "2017", "7c784ea5e424efaec655bd392f87301f", 186),
            _lists("2017", "train_val2017.zip", gives=("train2017.json", "val2017.json")),
        ),
    ),
}
"""By the name of the option."""
