"""Under torchrun every process encodes its share of the texts; the first one finds them all."""

import numpy as np

from hybridbatch.common.distributed import Workers
from hybridbatch.common.records import Texts
from hybridbatch.scoring.shared_encoding import _share


def test_the_shares_are_all_texts_once_and_alike_in_length():
    generator = np.random.default_rng(0)
    texts = ["x" * int(length) + str(n) for n, length in enumerate(generator.integers(1, 90, 200))]
    side = {"eng": Texts([str(n) for n in range(200)], texts), "deu": Texts(["a"], [texts[0]])}
    shares = [_share(side, Workers(rank, 4)) for rank in range(4)]
    assert sorted(text for share in shares for text in share) == sorted(texts)
    lengths = [sum(map(len, share)) for share in shares]
    assert max(lengths) < 1.1 * min(lengths)
