from pathlib import Path

from fgvc_cli.contracts import Tracker


class Sound(Tracker):
    def __init__(self, options):
        pass

    def started(self, run):
        self.path = run.own_folder("sound") / "lines.txt"

    def write(self, *words):
        with self.path.open("a", encoding="utf-8") as file:
            print(*words, file=file)

    def epoch_finished(self, metrics):
        self.write(metrics["epoch"])

    def finished(self, summary):
        self.write("end", None if summary is None else summary["epochs"])


class Failing(Sound):
    def epoch_finished(self, metrics):
        self.write(metrics["accuracy"])


class Expecting(Sound):
    def epoch_finished(self, metrics):
        self.write(metrics["val"]["top1"])


class Hopeful(Sound):
    def finished(self, summary):
        self.write(summary["seconds"])


class Early(Sound):
    def __init__(self, options):
        Path("tracker.log").write_text("here\n")


class Sprawling(Sound):
    def started(self, run):
        self.path = run.folder / "lines.txt"


class Popping(Sound):
    def epoch_finished(self, metrics):
        self.write(metrics.pop("epoch"))


class Editing(Sound):
    def started(self, run):
        super().started(run)
        (run.folder / "config.toml").write_text("")
