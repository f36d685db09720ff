"""The built-in studies: sets of runs for `fgvc sweep`, each a TOML file in this package."""

from fgvc_cli import StudySpec, hookimpl

REPORT = "The {count} combinations of the June 2024 report on {images}, ten epochs each, one seed"


@hookimpl
def fgvc_studies() -> list[StudySpec]:
    """Register the built-in studies."""
    return [
        StudySpec(
            "report-aircraft", "fgvc_studies:report-aircraft.toml", REPORT.format(count=14, images="FGVC-Aircraft")
        ),
        StudySpec("report-flowers", "fgvc_studies:report-flowers.toml", REPORT.format(count=14, images="Flowers-102")),
        StudySpec("report-mammalia", "fgvc_studies:report-mammalia.toml", REPORT.format(count=11, images="Mammalia")),
    ]
