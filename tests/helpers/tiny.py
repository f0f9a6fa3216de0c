"""Tiny random encoders of the families people fine-tune, made on the spot."""

import json
import string
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A Unigram tokenizer over single characters and a few syllables; any text can be spelt."""
    letters = (
        string.ascii_lowercase
        + string.digits
        + string.punctuation
        + "äöüßéñøåáíóúçãõ"
        + "абвгдежзийклмнопрстуфхцчшщыьэюя"
    )
    syllables = [a + b for a in "bcdfghklmnprstvwz" for b in "aeiou"]
    pieces = [(piece, 0.0) for piece in SPECIAL]
    pieces += (
        [("\u2581", -3.0)]
        + [(c, -6.0) for c in dict.fromkeys(letters)]
        + [(s, -8.0) for s in syllables]
    )
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>", pad_token="<pad>", unk_token="<unk>",
        model_max_length=128,
    )  # fmt: skip


def write_tiny_model(
    folder: Path,
    family: str = "bert",
    *,
    hidden: int = 32,
    layers: int = 2,
    dropout: float = 0.1,
    seed: int = 0,
) -> Path:
    """Save a random encoder of `family` (bert, xlm-roberta, roberta, distilbert, modernbert, ...)
    with its tokenizer.
    """
    tokenizer = tiny_tokenizer()
    sizes = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": 2 * hidden,
        "vocab_size": len(tokenizer) + 5,
        "max_position_embeddings": 130,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "type_vocab_size": 2 if family == "bert" else 1,
    }
    if family == "distilbert":
        sizes |= {"dim": hidden, "n_layers": layers, "n_heads": 4, "hidden_dim": 2 * hidden, "dropout": dropout,
                  "attention_dropout": dropout}  # fmt: skip
    if family == "modernbert":
        sizes |= {"cls_token_id": 0, "sep_token_id": 2, "attention_dropout": dropout, "mlp_dropout": dropout,
                  "embedding_dropout": dropout, "local_attention": 8, "global_attn_every_n_layers": 2}  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModel.from_config(AutoConfig.for_model(family, **sizes))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    (folder / "modules.json").write_text(
        json.dumps(
            [
                {
                    "idx": i,
                    "name": str(i),
                    "path": path,
                    "type": f"sentence_transformers.models.{kind}",
                }
                for i, (path, kind) in enumerate(modules)
            ]
        )
    )
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": hidden, "pooling_mode_mean_tokens": True})
    )
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": 128, "do_lower_case": False})
    )
    return folder
