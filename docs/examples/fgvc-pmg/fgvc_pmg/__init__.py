"""Progressive multi-granularity training (Du et al. 2020) as a head for fgvc."""

from fgvc_cli import HeadSpec, hookimpl


@hookimpl
def fgvc_heads() -> list[HeadSpec]:
    """Register the head."""
    return [
        HeadSpec(
            "pmg",
            "fgvc_pmg.head:PmgHead",
            "PMG: three stages and their concatenation, trained on jigsaw patches of increasing size",
            "fgvc_pmg.options:PmgOptions",
            "Du et al. 2020, Progressive Multi-Granularity Training of Jigsaw Patches, ECCV, arXiv 2003.03836",
            maps=3,
        )
    ]
