"""Tiny translators of the real classes with the real tokenizers, taught in seconds to say one
sentence per language.
"""

import io
import json
from pathlib import Path

import sentencepiece
import torch
from transformers import (
    M2M100Config,
    M2M100ForConditionalGeneration,
    M2M100Tokenizer,
    NllbTokenizer,
)

SAYS = {"swh": "Wanyama wengi wanaishi katika msitu huu.", "amh": "በዚህ ጫካ ውስጥ ብዙ እንስሳት ይኖራሉ።"}
ENGLISH = "Many animals live in this large forest of our country."
FLORES = {"eng": "eng_Latn", "fra": "fra_Latn", "swh": "swh_Latn", "amh": "amh_Ethi"}
M2M = {"eng": "en", "fra": "fr", "swh": "sw", "amh": "am"}


def write_nllb(folder: Path) -> Path:
    """An NLLB-200 model: `NllbTokenizer` whose merges make words of the sentences it knows; other
    text is spelt.
    """
    texts = (*SAYS.values(), ENGLISH)
    words = dict.fromkeys(f"▁{word}" for text in texts for word in text.split())
    merges = list(
        dict.fromkeys((word[:end], word[end]) for word in words for end in range(1, len(word)))
    )
    letters = sorted({letter for text in (*texts, *_ASCII) for letter in text if letter != " "})
    pieces = dict.fromkeys(
        ["<s>", "<pad>", "</s>", "<unk>", "▁", *letters, *("".join(merge) for merge in merges)]
    )
    tokenizer = NllbTokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)},
        merges=merges,
        additional_special_tokens=list(FLORES.values()),
    )
    return _taught(folder, tokenizer, {name: FLORES[name] for name in SAYS}, "eng_Latn")


def write_m2m100(folder: Path) -> Path:
    """An M2M-100 model: `M2M100Tokenizer` with a SentencePiece model of the words of the sentences
    it knows.
    """
    folder.mkdir(parents=True)
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*SAYS.values(), ENGLISH]), model_writer=trained, model_type="word", minloglevel=2,
        vocab_size=100, character_coverage=1.0, hard_vocab_limit=False,
    )  # fmt: skip
    (folder / "sentencepiece.bpe.model").write_bytes(trained.getvalue())
    spm = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())
    known = [spm.id_to_piece(number) for number in range(3, spm.get_piece_size())]
    vocabulary = {
        piece: number for number, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>", *known])
    }
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = M2M100Tokenizer(
        str(folder / "vocab.json"), str(folder / "sentencepiece.bpe.model")
    )
    return _taught(folder, tokenizer, {name: M2M[name] for name in SAYS}, "en")


_ASCII = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,?!'-"


def _taught(folder: Path, tokenizer, codes: dict[str, str], source: str) -> Path:
    size = (
        max(
            *tokenizer.get_vocab().values(),
            *getattr(tokenizer, "lang_code_to_id", {"": 0}).values(),
        )
        + 1
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = M2M100ForConditionalGeneration(
            M2M100Config(
                vocab_size=size, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4,
                decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=1024,
                dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, encoder_layerdrop=0.0,
                decoder_layerdrop=0.0, scale_embedding=False,
            )
        )  # fmt: skip
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        tokenizer.src_lang = source
        names, inputs, labels = list(codes), [], []
        for name in names:
            tokenizer.tgt_lang = codes[name]
            made = tokenizer(ENGLISH, text_target=SAYS[name])
            inputs.append(made["input_ids"])
            labels.append(made["labels"])
        width = max(map(len, labels))
        target = torch.tensor([label + [-100] * (width - len(label)) for label in labels])
        loss = torch.tensor(1.0)
        while loss > 0.1:
            loss = model(input_ids=torch.tensor(inputs), labels=target).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
