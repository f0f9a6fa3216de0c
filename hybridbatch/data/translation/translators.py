"""The interface of a translator."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hybridbatch.common.settings import Precision


@dataclass(frozen=True)
class Decoding:
    """How and where a sequence-to-sequence model decodes.

    Attributes:
        beams: number of beams of the beam search; 1 is greedy. Decoding never samples.
        batch_tokens: tokens of a batch, padding included.
        device: see the setting ``device``.
        precision: see the setting ``precision``.
    """

    beams: int = 4
    batch_tokens: int = 4096
    device: str = "auto"
    precision: Precision = "auto"


class Translator(Protocol):
    """Translates pieces of text: sentences or whole texts, as the translator prefers."""

    def describe(self) -> dict[str, Any]:
        """Everything besides the piece and the languages that a translation depends on, as JSON."""

    def speaks(self, language: str) -> bool:
        """Whether the translator translates from and into a canonical language."""

    def pieces(self, text: str, language: str) -> list[tuple[str, str]]:
        """A text cut into pieces, each with the white space that follows the piece."""

    def batches(self, pieces: Sequence[str], source: str) -> list[list[int]]:
        """The numbers of the pieces in each batch.

        The batches depend only on the pieces.
        """

    def translate(self, pieces: Sequence[str], source: str, target: str) -> list[str | None]:
        """The translations of one batch, or of a part of one batch.

        Returns:
            A translation for each piece; None for a piece whose translation was cut off.

        Raises:
            ModelError: The model fails, with a message of one line.
            DataError: The endpoint fails, with a message of one line.
        """
