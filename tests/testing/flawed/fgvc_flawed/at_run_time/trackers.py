from fgvc_flawed.trackers import Sound


def failing(method):
    """Return a tracker of which one method fails."""

    def fail(self, *_):
        raise ConnectionError("no answer")

    return type("Changed", (Sound,), {method: fail})


start_fails = failing("started")
epoch_fails = failing("epoch_finished")
finish_fails = failing("finished")
notes_fail = failing("notes")
note_text = type("Changed", (Sound,), {"notes": lambda self: "a note"})
exits = type("Changed", (Sound,), {"epoch_finished": lambda self, metrics: exit(3)})


class Unbuilt(Sound):
    def __init__(self, options):
        raise ConnectionError("no answer")


def not_one(options):
    return object()
