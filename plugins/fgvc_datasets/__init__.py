"""The built-in data sets."""

from fgvc_cli import DatasetSpec, hookimpl


@hookimpl
def fgvc_datasets() -> list[DatasetSpec]:
    """Register the built-in data sets."""
    return [
        DatasetSpec(
            "demo",
            "fgvc_datasets.demo.dataset:DemoDataset",
            "Drawn on the spot: birds of 12 species that differ in small parts",
            "fgvc_datasets.demo.options:DemoOptions",
        ),
        DatasetSpec(
            "folder",
            "fgvc_datasets.folder:FolderDataset",
            "Any folder of class folders, with or without train, val and test",
            "fgvc_datasets.folder_options:FolderOptions",
            reads_folder=True,
        ),
    ]
