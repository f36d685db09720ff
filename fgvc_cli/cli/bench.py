"""`fgvc bench`: time combinations on this machine, and compare two benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fgvc_cli.cli import common_options as common
from fgvc_cli.cli.common_options import option
from fgvc_cli.cli.lazy import QuickCommand, QuickGroup
from fgvc_cli.config.train_options import MANY

EXAMPLE = "fgvc bench --backbone swin_t --head linear --head pim --optimizer sgd"
COMPARE_EXAMPLE = "fgvc bench compare bench/before/ bench/after/"
COMBINATIONS, HOW, IMAGES, RESULTS = (
    "What to time",
    "Measurement",
    "Real images, for --epoch and --pipeline",
    "Results",
)


class BenchGroup(QuickGroup):
    """Explains how to name components where one is given like a subcommand."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the subcommand for the arguments."""
        if args[0] not in self.commands:
            from fgvc_cli.errors import UsageError, did_you_mean

            near = did_you_mean(args[0], self.commands)
            raise UsageError(
                f"fgvc bench has no command {args[0]}.{near} Choose components with --backbone, --head and --optimizer."
            )
        return super().resolve_command(ctx, args)


bench = typer.Typer(
    add_completion=False,
    cls=BenchGroup,
    rich_markup_mode="rich",
    invoke_without_command=True,
    epilog=f"Example: {EXAMPLE}",
)


@bench.callback()
def measure(
    context: typer.Context,
    backbone: Annotated[list[str] | None, common.named_option("backbone", COMBINATIONS, "all built-in")] = None,
    head: Annotated[list[str] | None, common.named_option("head", COMBINATIONS, "all built-in")] = None,
    optimizer: Annotated[list[str] | None, common.named_option("optimizer", COMBINATIONS, "all built-in")] = None,
    all_plugins: Annotated[
        bool, option(COMBINATIONS, "Include components of plugins, for kinds without a name.", "--all")
    ] = False,
    explain: Annotated[
        list[str] | None,
        common.component_option(
            "explainer", COMBINATIONS, f"Explainer whose saliency maps to time too. {common.SEVERAL}", "none"
        ),
    ] = None,
    epoch: Annotated[
        bool, option(COMBINATIONS, "Also time an epoch of each combination over real images.", "--epoch")
    ] = False,
    pipeline: Annotated[
        bool, option(COMBINATIONS, "Time the input pipeline; nothing else unless components are named.", "--pipeline")
    ] = False,
    image_size: Annotated[int | None, common.setting("train.image_size", HOW, "by recipe on CUDA, else 64")] = None,
    batch_size: Annotated[
        str | None,
        option(
            HOW,
            "Images per batch; max: as many as fit into the GPU's memory.",
            default="64 on CUDA, else 8",
            metavar="N|max",
        ),
    ] = None,
    classes: Annotated[int, option(HOW, "Number of classes of the head.", min=2, max=1_000_000)] = 100,
    recipe: Annotated[
        str, common.component_option("recipe", HOW, "Recipe: named settings to start from.", "scratch")
    ] = "scratch",
    set_: Annotated[list[str] | None, common.set_option(HOW)] = None,
    seconds: Annotated[
        float | None,
        option(
            HOW,
            "Time limit for each measurement; one round is always timed.",
            default="10 on CUDA, else 2",
            min=0.01,
            max=86_400,
        ),
    ] = None,
    device: common.Device = "auto",
    precision: common.Precision = "auto",
    channels_last: Annotated[str, common.setting("train.channels_last", common.COMPUTING, shown_default=True)] = "auto",
    compile_: Annotated[bool, common.setting("train.compile", common.COMPUTING, shown_default=False)] = False,
    dataset: Annotated[str | None, common.trained_dataset_option(IMAGES)] = None,
    data: Annotated[Path | None, common.trained_data_option(IMAGES)] = None,
    workers: Annotated[int | None, common.setting("train.workers", IMAGES, "-1")] = None,
    out: Annotated[
        Path | None,
        option(RESULTS, "Folder for bench.json, bench.csv and bench.png.", default="a new one under bench/"),
    ] = None,
    force: Annotated[bool, option(RESULTS, "Replace the benchmark in the --out folder.", "--force")] = False,
    json: Annotated[bool, option(RESULTS, "Print one JSON document.", "--json")] = False,
) -> None:
    """Time combinations of backbone, head and optimizer on this machine.

    Times whole training updates and predictions on random images with random weights; nothing is downloaded.

    Exit code 1: no combination could be timed; 130: interrupted, the results so far are kept.
    """
    if context.invoked_subcommand is not None:
        from fgvc_cli.errors import UsageError

        if given := common.given_options(context):
            raise UsageError(f"fgvc bench {context.invoked_subcommand} takes no {given[0]}")
        return
    import sys
    from contextlib import redirect_stdout

    from fgvc_cli.benchmarking import files, run
    from fgvc_cli.benchmarking.combinations import BenchRequest
    from fgvc_cli.cli import bench_tables, console
    from fgvc_cli.errors import FgvcError, UsageError
    from fgvc_cli.registry import get_registry
    from fgvc_cli.runs.folder import choose_new_folder

    of_images = {"--dataset": dataset, "--data": data, "--workers": workers}
    given = [option for option, value in of_images.items() if value is not None]
    if given and not (epoch or pipeline):
        raise UsageError(f"{given[0]} is for real images, and updates use random ones; add --epoch or --pipeline")
    request = BenchRequest(
        backbones=backbone or (),
        heads=head or (),
        optimizers=optimizer or (),
        all_plugins=all_plugins,
        explain=explain or (),
        image_size=image_size,
        batch_size=_parsed(batch_size),
        classes=classes,
        recipe=recipe,
        settings=tuple(set_ or ()),
        device=device,
        precision=precision,
        channels_last=channels_last,  # type: ignore[arg-type]
        compile=compile_,
        seconds=seconds,
        epoch=epoch,
        pipeline=pipeline,
        dataset=dataset,
        data=data,
        workers=-1 if workers is None else workers,
    )
    written = files.BenchFiles(choose_new_folder(out, force, "bench", "the benchmark"))
    with redirect_stdout(sys.stderr):  # plugins may print
        report = run.bench(request, get_registry(), written.save_if_possible)
    if json:
        console.print_json(report.as_json())
    else:
        bench_tables.show_report(report)
    written.finish(report)
    if not json:
        bench_tables.show_places(written, report)
    if report.interrupted:
        raise typer.Exit(130)
    if report.rows and all(row.failed and not row.update for row in report.rows):
        raise FgvcError("No combination could be timed; the reasons are above")


@bench.command(cls=QuickCommand, epilog=f"Example: {COMPARE_EXAMPLE}")
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A bench.json file or its folder.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one, to compare with A.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Compare two benchmarks: how much faster is B?

    Matches combinations at the same image size and batch size, after listing differences of machine, versions and
    settings.
    """
    from fgvc_cli.benchmarking import comparing, files
    from fgvc_cli.cli import console
    from fgvc_cli.cli.bench_comparison import show_comparison

    comparison = comparing.compare(files.read_report(first), files.read_report(second))
    comparison.check(str(first), str(second))
    if json:
        console.print_json(comparison.as_json())
    else:
        show_comparison(comparison, str(first), str(second))


def _parsed(batch_size: str | None) -> int | Literal["max"] | None:
    """Parse a batch size: a number or "max"."""
    if batch_size is None or batch_size == "max":
        return batch_size  # type: ignore[return-value]
    if not batch_size.isdecimal() or not 1 <= int(batch_size[:20]) <= MANY:
        from fgvc_cli.errors import UsageError

        raise UsageError(
            f"--batch-size {batch_size}: expected a number of images up to {MANY}, or max for as many as fit"
        )
    return int(batch_size)
