"""A reporter that keeps what it is told."""

from hybridbatch.common.progress import SilentReporter


class RecordingReporter(SilentReporter):
    """Notes and warnings, in order."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)
