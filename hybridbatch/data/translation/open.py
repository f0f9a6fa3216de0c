"""Opens the translator and the translation that the settings name."""

from collections.abc import Sequence

from hybridbatch.common.languages import canonical
from hybridbatch.common.progress import Reporter
from hybridbatch.data.settings import PrepareConfig
from hybridbatch.data.translation.translate_rows import Translation
from hybridbatch.data.translation.translators import Decoding, Translator


def open_translation(
    config: PrepareConfig, report: Reporter, only: Sequence[str] = ()
) -> Translation:
    """The translation that `config` asks for.

    Args:
        only: names of the sources whose records are translated; empty: all sources.

    Raises:
        ConfigError: The translator lacks a language.
        DataError: A language is unknown.
        ModelError: See `open_translator`.
    """
    targets, prefer = (
        tuple(map(canonical, codes)) for codes in (config.translate_to, config.translate_from)
    )
    decoding = Decoding(config.beams, config.batch_tokens, config.device, config.precision)
    return Translation(
        open_translator(config.translator or "", decoding, report),
        targets,
        prefer,
        report,
        only=only,
    )


def open_translator(name: str, decoding: Decoding, report: Reporter) -> Translator:
    """The translator of a name.

    Args:
        name: ``http://HOST/v1#MODEL`` for a model behind an OpenAI-compatible address, else the
            folder or hub id (``id@revision``) of an NLLB-200 or M2M-100 model.

    Raises:
        ConfigError: An address does not name a model.
        ModelError: A model cannot be loaded or used.
    """
    if name.startswith(("http://", "https://")):
        from hybridbatch.data.translation.endpoint import EndpointTranslator

        return EndpointTranslator(name)
    from hybridbatch.data.translation.seq2seq import Seq2SeqTranslator

    return Seq2SeqTranslator(name, decoding, report)
