"""A second stage on the first passages of every ranking: cross-encoders and listwise language
models.
"""

from hybridbatch.scoring.reranking.models import Reranker, load_reranker

__all__ = ["Reranker", "load_reranker"]
