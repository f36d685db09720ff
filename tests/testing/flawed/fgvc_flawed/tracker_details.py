from fgvc_flawed.trackers import Sound


class OneNote(Sound):
    def notes(self):
        return "a note"


class Editing(Sound):
    def started(self, run):
        super().started(run)
        (run.folder / "config.toml").write_text("")
