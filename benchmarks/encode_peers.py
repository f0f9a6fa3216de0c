"""The backends of sentence-transformers, for `bench_encode.py --peers-python`.

It runs in an environment of its own, because optimum asks for other versions of transformers. For
each line of standard input (``NAME BATCH``) it encodes all texts once, writes their vectors and
prints the seconds. Each backend has the precision that its name says, and one thread.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer


def main() -> None:
    """Load the backends and encode on demand."""
    options = json.loads(sys.argv[1])
    torch.set_num_threads(options["threads"])
    folder = Path(options["folder"])
    texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    models = {}
    for name in options["backends"]:
        try:
            models[name] = load(name, folder, options["threads"])
            models[name].max_seq_length = options["most"]
        except (
            Exception
        ) as error:  # a backend that is not installed, or cannot convert the model
            print(json.dumps({"missing": name, "why": repr(error)[:300]}), flush=True)
    import transformers

    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    print(json.dumps({"ready": list(models), "versions": versions}), flush=True)
    for line in sys.stdin:
        name, batch = line.split()
        wall, cpu = time.perf_counter(), time.process_time()
        parts = []
        half = name == "torch-bf16"
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            for side, some in texts.items():
                found = models[name].encode(
                    some, prompt_name=side, batch_size=int(batch), convert_to_tensor=True
                )
                parts.append(found.float().cpu().numpy())
        spent = {
            "wall_seconds": time.perf_counter() - wall,
            "cpu_seconds": time.process_time() - cpu,
        }
        np.save(folder / "peer.npy", np.concatenate(parts))
        print(json.dumps(spent), flush=True)


def load(name: str, folder: Path, threads: int) -> SentenceTransformer:
    """A backend: torch, onnx-O3 or openvino, each in fp32 or, with ``-bf16``, in bf16."""
    start = str(folder / "start")
    if name.startswith("torch"):
        return SentenceTransformer(start, device="cpu")
    if name == "onnx-O3":
        import onnxruntime
        from sentence_transformers.backend import export_optimized_onnx_model

        exported = str(folder / "onnx")
        model = SentenceTransformer(start, backend="onnx", device="cpu")
        model.save_pretrained(exported)
        export_optimized_onnx_model(model, "O3", exported)
        session = onnxruntime.SessionOptions()
        session.intra_op_num_threads = threads
        file = {"file_name": "onnx/model_O3.onnx", "session_options": session}
        return SentenceTransformer(exported, backend="onnx", device="cpu", model_kwargs=file)
    kind = "bf16" if name.endswith("bf16") else "f32"
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": kind}
    return SentenceTransformer(
        start, backend="openvino", device="cpu", model_kwargs={"ov_config": settings}
    )


if __name__ == "__main__":
    main()
