"""Pack what `gpu_accept.py` needs on a machine with a GPU and no network, in at most 64 MiB.

The folder holds `encoder.tar.xz` (a real encoder, cut to the words of the texts), `texts.jsonl`
(query-passage pairs of the prepared data), and the wheels of packages that the machine lacks
(`--wheel NAME==VERSION`, for its Python). Carry the folder and the repository there, then

    python -m pip install --no-deps --target site BUNDLE/*.whl
    PYTHONPATH=site:. python benchmarks/gpu_accept.py --bundle BUNDLE --out benchmarks/results/gpu.json
"""

import argparse
import json
import lzma
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from hybridbatch.common.files import atomic_path, make_folder, read_json, write_json
from hybridbatch.common.integrity import SUMS
from hybridbatch.data.store.reader import Store
from hybridbatch.model import Encoder

MOST = 64 << 20  # bytes
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def main() -> None:
    """Pack, and say how large the bundle is."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("folder", type=Path)
    made.add_argument("--model", default="e5-small-q4", help="encoder to cut")
    made.add_argument("--data", type=Path, default=Path("data/atlas"), help="prepared data")
    made.add_argument("--pairs", type=int, default=4000)
    made.add_argument("--wheel", action="append", default=[], help="NAME==VERSION, repeatable")
    made.add_argument("--python", default="3.12", help="of the other machine")
    options = made.parse_args()
    make_folder(options.folder)
    pairs = pick_pairs(options.data, options.pairs)
    with atomic_path(options.folder / "texts.jsonl") as path:
        path.write_text("".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs))
    with tempfile.TemporaryDirectory() as temporary:
        cut = Path(temporary) / "encoder"
        words = cut_encoder(Encoder.load(options.model), pairs, cut)
        with (
            atomic_path(options.folder / "encoder.tar.xz") as path,
            lzma.open(path, "wb", preset=1) as packed,
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            archive.add(cut, "encoder")
    for wheel in options.wheel:
        fetch_wheel(wheel, options.python, options.folder)
    size = sum(path.stat().st_size for path in options.folder.iterdir())
    print(f"{options.folder}: {len(pairs):,} pairs, {words:,} words, {size / 2**20:.1f} MiB")
    if size > MOST:
        sys.exit(f"more than {MOST >> 20} MiB: choose fewer --pairs or wheels")


def pick_pairs(data: Path, count: int) -> list[dict[str, str]]:
    """Pairs spread evenly over the training rows that have both sides."""
    store = Store.open(data)
    index = store.index("train")
    able = np.flatnonzero(np.asarray(index.has) == 3)
    rows = able[np.linspace(0, len(able) - 1, min(count, len(able))).astype(np.int64)]
    queries = store.queries("train", index.store_rows(rows))
    passages = store.passages("train", index.store_rows(rows))
    return [{"query": q, "passage": p} for q, p in zip(queries, passages, strict=True)]


def cut_encoder(encoder: Encoder, pairs: list[dict[str, str]], folder: Path) -> int:
    """Save the encoder with the words of the pairs alone, in fp16; returns how many there are.

    Raises: `SystemExit` where its tokenizer is not a Unigram one.
    """
    queries = encoder.tokenise([pair["query"] for pair in pairs], "query")
    passages = encoder.tokenise([pair["passage"] for pair in pairs], "passage")
    encoder.save(folder, "A part of an encoder, for tests on a GPU.")
    settings = read_json(folder / "tokenizer.json")
    if settings["model"]["type"] != "Unigram":
        sys.exit(f"{encoder.name}: only encoders with a Unigram tokenizer can be cut")
    pieces = settings["model"]["vocab"]
    special = [word["id"] for word in settings["added_tokens"]]
    # Single characters stay: any other text can still be spelt with what is left of them.
    single = [number for number, (piece, _) in enumerate(pieces[:2000]) if len(piece) == 1]
    kept = np.unique(np.concatenate([queries.ids, passages.ids, special, single])).astype(
        np.int64
    )
    place = {int(old): new for new, old in enumerate(kept)}
    settings["model"]["vocab"] = [pieces[old] for old in kept if old < len(pieces)]
    settings["model"]["unk_id"] = place[settings["model"]["unk_id"]]
    for word in settings["added_tokens"]:
        word["id"] = place[word["id"]]
    for word in settings["post_processor"].get("special_tokens", {}).values():
        word["ids"] = [place[old] for old in word["ids"]]
    write_json(folder / "tokenizer.json", settings)
    weights = {name: value.half() for name, value in encoder.model.state_dict().items()}
    table = next(name for name in weights if name.endswith("word_embeddings.weight"))
    weights[table] = weights[table][torch.from_numpy(kept)]
    contiguous = {name: value.contiguous() for name, value in weights.items()}
    save_file(contiguous, folder / "model.safetensors", metadata={"format": "pt"})
    shape = read_json(folder / "config.json")
    padding = place.get(shape.get("pad_token_id"))
    write_json(
        folder / "config.json", shape | {"vocab_size": len(kept), "pad_token_id": padding}
    )
    (folder / SUMS).unlink(missing_ok=True)  # of the encoder before it was cut
    return len(kept)


def fetch_wheel(name: str, python: str, folder: Path) -> None:
    """Download one wheel, without what it needs itself."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        name,
    ]
    command += ["--python-version", python, "--implementation", "cp", "-d", str(folder)]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
