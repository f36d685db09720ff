"""The built-in trackers."""

from fgvc_cli import TrackerSpec, hookimpl


@hookimpl
def fgvc_trackers() -> list[TrackerSpec]:
    """Register the built-in trackers."""
    return [
        TrackerSpec(
            "tensorboard",
            "fgvc_trackers.tensorboard:TensorBoard",
            'Log curves to TensorBoard; needs pip install "fgvc-cli[tensorboard]"',
            "fgvc_trackers.options:TensorBoardOptions",
            "TensorBoard, github.com/tensorflow/tensorboard",
        )
    ]
