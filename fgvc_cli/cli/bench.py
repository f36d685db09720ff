"""`fgvc bench`: time combinations on this machine, and compare two results."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

import typer

from fgvc_cli.benchmarking.results import Row
from fgvc_cli.benchmarking.text import failures, speed
from fgvc_cli.cli import common_options as common
from fgvc_cli.cli import console
from fgvc_cli.cli.completion import component_names
from fgvc_cli.cli.lazy import QuickCommand, QuickGroup
from fgvc_cli.progress import Progress


class BenchView:
    """Shows a benchmark as it goes; see `fgvc_cli.benchmarking.run.Watcher` for when each method is called.

    It is a context: the bar is gone when that ends.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._bar: Progress | None = None

    def __enter__(self) -> BenchView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def planned(self, names: Sequence[str]) -> None:
        """Say how much there is to do, and put up the bar."""
        if len(names) > 1:
            console.note(f"{len(names)} combinations; Ctrl-C shows and keeps what is measured until then")
        self._bar = self._stack.enter_context(console.progress("bench", len(names) or None, "combinations"))

    def started(self, name: str) -> None:
        """Name what is measured now."""
        if self._bar is not None:
            self._bar.advance(0, name)

    def finished(self, row: Row) -> None:
        """Move the bar; say at once what failed, for a person may want to stop and mend it."""
        if self._bar is not None:
            rate = f"{speed(row.update)} images/s" if row.update else "failed"
            self._bar.advance(1, f"{row.name}: {rate}")
        for line in failures([row]):
            console.note(line)


EXAMPLE = "fgvc bench --backbone swin_t --head linear --head pim --optimizer sgd"
COMPARE_EXAMPLE = "fgvc bench compare bench/before/ bench/after/"
COMBINATIONS, HOW, IMAGES, RESULTS = (
    "What is timed",
    "How",
    "Real images, for --epoch and --pipeline",
    "Results",
)


class BenchGroup(QuickGroup):
    """Says what to write instead of a component's bare name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the subcommand that the arguments name."""
        if args[0] not in self.commands:
            from fgvc_cli.errors import UsageError, did_you_mean

            near = did_you_mean(args[0], self.commands)
            raise UsageError(
                f"fgvc bench {args[0]}: there is no such command.{near} Components are named with --backbone, --head "
                "and --optimizer."
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
    backbone: Annotated[list[str] | None, common.named_option("backbone", COMBINATIONS, "all built-in ones")] = None,
    head: Annotated[list[str] | None, common.named_option("head", COMBINATIONS, "all built-in ones")] = None,
    optimizer: Annotated[list[str] | None, common.named_option("optimizer", COMBINATIONS, "all built-in ones")] = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="Where no name is given: those of installed plugins too.", rich_help_panel=COMBINATIONS
        ),
    ] = False,
    explain: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Time this explainer's heat maps too. {common.SEVERAL}",
            show_default=False,
            autocompletion=component_names("explainer"),
            rich_help_panel=COMBINATIONS,
        ),
    ] = None,
    epoch: Annotated[
        bool,
        typer.Option(
            "--epoch", help="Time an epoch of each combination over real images too.", rich_help_panel=COMBINATIONS
        ),
    ] = False,
    pipeline: Annotated[
        bool,
        typer.Option(
            "--pipeline", help="Time the input pipeline; without other names, only that.", rich_help_panel=COMBINATIONS
        ),
    ] = False,
    image_size: Annotated[
        int | None,
        common.setting("train.image_size", HOW, "by recipe on CUDA, else 64"),
    ] = None,
    batch_size: Annotated[
        str | None,
        typer.Option(
            metavar="N|max",
            help="Images in a batch; max: as many as fit into the GPU's memory.",
            show_default="64 on CUDA, else 8",
            rich_help_panel=HOW,
        ),
    ] = None,
    classes: Annotated[int, typer.Option(min=2, help="Classes that the head tells apart.", rich_help_panel=HOW)] = 100,
    recipe: Annotated[
        str,
        typer.Option(
            help="Named settings to begin from.", autocompletion=component_names("recipe"), rich_help_panel=HOW
        ),
    ] = "finetune",
    set_: Annotated[
        list[str] | None,
        common.set_option(HOW),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            help="For each piece of work, at most; one round is always timed.",
            show_default="10 on CUDA, else 2",
            rich_help_panel=HOW,
        ),
    ] = None,
    device: common.Device = "auto",
    precision: common.Precision = "auto",
    channels_last: Annotated[
        str,
        common.setting("train.channels_last", common.COMPUTING, shown_default=True),
    ] = "auto",
    compile_: Annotated[bool, common.setting("train.compile", common.COMPUTING, shown_default=False)] = False,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Dataset, by name.",
            show_default="drawn images",
            autocompletion=component_names("dataset"),
            rich_help_panel=IMAGES,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="A folder of class folders, or a CSV or TSV of path, label.",
            show_default=False,
            rich_help_panel=IMAGES,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        common.setting("train.workers", IMAGES, "-1"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for bench.json, bench.csv and bench.png.",
            show_default="a new one under bench/",
            rich_help_panel=RESULTS,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the benchmark that --out holds.", rich_help_panel=RESULTS)
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.", rich_help_panel=RESULTS)] = False,
) -> None:
    """Time combinations of backbone, head and optimizer on this machine.

    Whole training updates and predictions, on random images and weights: nothing is downloaded.

    Exit code 1: no combination could be timed; 130: interrupted, what was measured is kept.

    """
    if context.invoked_subcommand is not None:
        _refuse_options(context)
        return
    import sys
    from contextlib import redirect_stdout

    from fgvc_cli.benchmarking import files, run
    from fgvc_cli.benchmarking.combinations import BenchRequest, batch_size_named, refuse_images_for_nothing
    from fgvc_cli.cli import bench_tables, console

    pass
    from fgvc_cli.errors import FgvcError
    from fgvc_cli.registry import get_registry

    refuse_images_for_nothing({"--dataset": dataset, "--data": data, "--workers": workers}, epoch or pipeline)
    request = BenchRequest(
        backbones=backbone or (),
        heads=head or (),
        optimizers=optimizer or (),
        everything=everything,
        explainers=explain or (),
        image_size=image_size,
        batch_size=batch_size_named(batch_size),
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
    written = files.BenchFiles(files.choose_folder(out, force))
    with redirect_stdout(sys.stderr), BenchView() as view:  # what a plugin prints is no result
        report = run.bench(request, get_registry(), view, written.keep_if_possible)
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
        raise FgvcError("No combination could be timed: the reasons are above.")


@bench.command(cls=QuickCommand, epilog=f"Example: {COMPARE_EXAMPLE}")
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A bench.json, or the folder that it is in.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Set two results beside each other: how much faster is B?

    Combinations are matched at the same image size and batch size.

    What was different, machine, versions or settings, is named first.

    """
    from fgvc_cli.benchmarking import comparing, files
    from fgvc_cli.cli import console
    from fgvc_cli.cli.bench_comparison import show_comparison

    comparison = comparing.compare(files.read_report(first), files.read_report(second))
    comparison.refuse_if_empty(str(first), str(second))
    if json:
        console.print_json(comparison.as_json())
    else:
        show_comparison(comparison, str(first), str(second))


def _refuse_options(context: typer.Context) -> None:
    """Refuse options of `fgvc bench` before the name of a subcommand, which would be ignored."""
    from fgvc_cli.errors import UsageError

    if given := common.given_options(context):
        raise UsageError(f"fgvc bench {context.invoked_subcommand} takes no {given[0]}: leave it out.")
