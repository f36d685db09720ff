"""Stanford Cars: cars by make, model and year (Krause et al., 3dRR 2013)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from fgvc_cli.contracts import Taxonomy
from fgvc_datasets.torchvision_dataset import Listing, TorchvisionDataset

LONG_MAKES = ("AM General", "Aston Martin", "Land Rover")
"""Makes of more than one word."""
ANNOTATIONS = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}


class StanfordCarsDataset(TorchvisionDataset):
    """16,185 photographs of 196 cars: 8,144 for training and 8,041 for the test.

    Whole photographs are used, as is usual; the published bounding boxes are not.
    """

    title = "stanford_cars"
    published: ClassVar[Mapping[str, int]] = {"train": 8144, "test": 8041}
    needed = ("cars_train", "cars_test", "devkit/cars_meta.mat", *ANNOTATIONS.values())
    by_hand = """\
The links of ai.stanford.edu no longer work, and no other official one is known (https://github.com/pytorch/vision/issues/7545).
Copies are on Kaggle; rickyyyyyyy/torchvision-stanford-cars has this layout, which torchvision reads too. Put here:
  cars_train/00001.jpg ... 08144.jpg   (not cars_train/cars_train/, as some copies have it)
  cars_test/00001.jpg ... 08041.jpg
  devkit/cars_meta.mat
  devkit/cars_train_annos.mat
  cars_test_annos_withlabels.mat       (with labels: not the devkit's cars_test_annos.mat)"""
    homepage = "https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.StanfordCars.html"
    license = "not stated in its files; the photographs belong to their owners"

    def lists(self, split: str) -> tuple[str, ...]:
        """Return the split's annotations and the list of classes."""
        return ANNOTATIONS[split], "devkit/cars_meta.mat"

    def taxonomy(self) -> Taxonomy:
        """Return the make of each class, the first word of its name (two for some): the dataset lists no makes."""
        makes = {name: (next((m for m in LONG_MAKES if name.startswith(f"{m} ")), name.split()[0]),)
                 for name in self.class_names}  # fmt: skip
        return Taxonomy(("model", "make"), makes)

    def listing(self, split: str) -> Listing:
        """Read a split with torchvision."""
        from torchvision.datasets import StanfordCars

        listed = StanfordCars(self.folder.parent, split)
        images = [self.relative(path) for path, _ in listed._samples]
        return Listing(listed.classes, images, [int(label) for _, label in listed._samples])
