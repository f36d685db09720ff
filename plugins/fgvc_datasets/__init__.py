"""The built-in datasets."""

from fgvc_cli import DatasetSpec, hookimpl

TORCHVISION = (
    DatasetSpec(
        "flowers102",
        "fgvc_datasets.flowers102:Flowers102Dataset",
        "Oxford Flowers-102: 102 species, 8,189 images",
        "fgvc_datasets.options:Flowers102Options",
        source="Nilsback, Zisserman 2008, ICVGIP",
    ),
    DatasetSpec(
        "fgvc_aircraft",
        "fgvc_datasets.fgvc_aircraft:FgvcAircraftDataset",
        "FGVC-Aircraft: 100 variants, 70 families or 30 manufacturers, 10,000 images",
        "fgvc_datasets.options:FgvcAircraftOptions",
        source="Maji et al. 2013, arXiv 1306.5151",
    ),
    DatasetSpec(
        "stanford_cars",
        "fgvc_datasets.stanford_cars:StanfordCarsDataset",
        "Stanford Cars: 196 car models by make and year, 16,185 images",
        source="Krause et al. 2013, 3dRR",
    ),
    DatasetSpec(
        "oxford_pets",
        "fgvc_datasets.oxford_pets:OxfordPetsDataset",
        "Oxford-IIIT Pet: 37 breeds of cats and dogs, 7,349 images",
        source="Parkhi et al. 2012, CVPR",
    ),
    DatasetSpec(
        "food101",
        "fgvc_datasets.food101:Food101Dataset",
        "Food-101: 101 dishes, 101,000 images",
        source="Bossard et al. 2014, ECCV",
    ),
    DatasetSpec(
        "inat",
        "fgvc_datasets.inat:InatDataset",
        "iNaturalist 2017 to 2021: 1,010 to 10,000 species, 0.3 to 2.8 million images",
        "fgvc_datasets.options:InatOptions",
        source="Van Horn et al. 2018, arXiv 1707.06642; 2021, arXiv 2103.16483",
    ),
)
"""Datasets that torchvision supports, in its layout."""


@hookimpl
def fgvc_datasets() -> list[DatasetSpec]:
    """Register the built-in datasets."""
    return [
        DatasetSpec(
            "demo",
            "fgvc_datasets.demo.dataset:DemoDataset",
            "Small synthetic dataset, generated on first use: birds of 12 species that differ in small parts",
            "fgvc_datasets.options:DemoOptions",
        ),
        DatasetSpec(
            "demo_unknown",
            "fgvc_datasets.demo.dataset:DemoUnknownDataset",
            "Images like those of demo, of 6 other species: a run of demo should not know them",
            "fgvc_datasets.options:DemoUnknownOptions",
        ),
        DatasetSpec(
            "folder",
            "fgvc_datasets.folder:FolderDataset",
            "Any folder with one folder per class, with or without train, val and test",
            "fgvc_datasets.options:FolderOptions",
            reads_folder=True,
        ),
        DatasetSpec(
            "table",
            "fgvc_datasets.table.dataset:TableDataset",
            "Any CSV or TSV file with the columns path, label and optionally split",
            "fgvc_datasets.options:TableOptions",
            reads_files=(".csv", ".tsv"),
        ),
        DatasetSpec(
            "shards",
            "fgvc_datasets.shards.dataset:ShardsDataset",
            "Tar files of images (WebDataset shards), local or in an object store, by their index (fgvc data index)",
            "fgvc_datasets.options:ShardsOptions",
            reads_files=(".shards",),
            index="fgvc_datasets.shards.indexing:write_index",
        ),
        *TORCHVISION,
        DatasetSpec(
            "cub200",
            "fgvc_datasets.visipedia:Cub200Dataset",
            "CUB-200-2011: 200 bird species, 11,788 images",
            source="Wah et al. 2011, Caltech technical report CNS-TR-2011-001",
        ),
        DatasetSpec(
            "nabirds",
            "fgvc_datasets.visipedia:NabirdsDataset",
            "NABirds: 555 bird classes by species, sex and age, 48,562 images",
            source="Van Horn et al. 2015, CVPR",
        ),
        DatasetSpec(
            "grocery_store",
            "fgvc_datasets.grocery_store:GroceryStoreDataset",
            "Grocery Store: 81 fine or 43 coarse classes of groceries, 5,421 images",
            "fgvc_datasets.options:GroceryStoreOptions",
            source="Klasson, Zhang, Kjellström 2019, arXiv 1901.00711",
        ),
        DatasetSpec(
            "mammalia",
            "fgvc_datasets.mammalia:MammaliaDataset",
            "Mammalia of the June 2024 report: 100 classes of mammals, 60 images each; not public",
            "fgvc_datasets.options:MammaliaOptions",
            source="University of Trento, Introduction to Machine Learning 2024 (docs/report.md)",
        ),
    ]
