"""Machine translation of training rows into languages that their records lack."""

from hybridbatch.config import PrepareConfig
from hybridbatch.languages import canonical
from hybridbatch.reporting import Reporter
from hybridbatch.translation.rows import Translation
from hybridbatch.translation.translators import Decoding, Translator, open_translator

__all__ = ["Decoding", "Translation", "Translator", "open_translation", "open_translator"]


def open_translation(config: PrepareConfig, report: Reporter) -> Translation:
    """The translation that `config` asks for.

    Raises: `ConfigError` for a language that the translator lacks; `DataError` for an unknown one; as `open_translator`.
    """
    targets, prefer = (tuple(map(canonical, codes)) for codes in (config.translate_to, config.translate_from))
    decoding = Decoding(config.beams, config.batch_tokens, config.device, config.precision)
    return Translation(open_translator(config.translator or "", decoding, report), targets, prefer, report)
