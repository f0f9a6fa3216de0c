"""All homes, by the folder of the files that we build from them."""

from collections.abc import Mapping

from hybridbatch.data.homes.aligned import (
    build_lafand,
    build_ntrex,
    build_sib200,
    build_tatoeba,
    build_tico19,
)
from hybridbatch.data.homes.belebele import build_belebele_sib
from hybridbatch.data.homes.bible import build_bible
from hybridbatch.data.homes.exams import build_exams
from hybridbatch.data.homes.home import Home, Repository
from hybridbatch.data.homes.questions import build_mkqa_mia
from hybridbatch.data.homes.retrieval import (
    build_afriqa,
    build_amqa,
    build_tydi,
    build_xquad_ro,
)
from hybridbatch.data.homes.stories import build_stories

SIB200 = Repository(
    "dadelani/sib-200", "593cea88519930f776c1a4a1980b6a35b39dca57", "data/annotated", whole=True
)
NTREX = Repository(
    "MicrosoftTranslator/NTREX", "8561f6a622db9edad1217683e5c83daefd8bb2bf", "NTREX-128"
)
TICO19 = Repository(
    "tico-19/tico-19.github.io", "d97615f9cffa28ec7de571e00fbd513e5a1c7fc7", "data/TM"
)
MKQA_MIA = Repository(
    "mia-workshop/MIA-Shared-Task-2022",
    "ea2491a3e3a588e270b2dd30ce7e044584c3eeb5",
    "data/eval/mkqa_dev.zip",
)
AFRIQA = Repository(
    "masakhane-io/afriqa", "5c29933753692c28773c34ac1f68482007f1d2bb", "data/gold_passages"
)
AMQA = Repository(
    "semantic-systems/amharic-qa", "68d06ea20ba0dedfdb99385d44fbdc54b83ad96a", "train_data.json"
)
TYDI = Repository(
    "sagorbrur/tydiqa-language-specific",
    "55c6649475e0765f717a6d32a173c6664096a8ce",
    "language_data",
)
XQUAD = Repository(
    "google-deepmind/xquad", "7d30520c717524000f0d9d2f9c10a069acd9d285", "xquad.ro.json"
)
ITEMS = Repository(
    "saeub/item-evaluation", "c6332925bd1984396267a60a861227514edac484", "data/belebele"
)
LASER = Repository(
    "facebookresearch/LASER", "74bc6ae7ffb7cba670fe0f428d0ede9f666fb821", "data/tatoeba"
)
EXAMS = Repository(
    "mhardalov/exams-qa", "f859e665de6c370f6214ca5f36a34ace36ada6cb", "data/exams"
)
LAFAND = Repository(
    "masakhane-io/lafand-mt", "d441f8b063d63e95eafb72e84317359e27abf95e", "data/doc_level_tsv"
)
BIBLE = Repository(
    "christos-c/bible-corpus", "44e5fca1bfb369a5da2ee23ebc6f421c88489c5c", "bibles"
)
KING_JAMES = Repository(
    "aruljohn/Bible-kjv", "a9aa4e55afbb3e095f57e4b14cd1f22c5ee8d7c9", "Genesis.json"
)
STORIES = (
    Repository(
        "global-asp/asp-source", "99e022369a980bd52bce8c6f86d5f24e9a4ada9d", "sw", whole=True
    ),
    Repository(
        "global-asp/global-asp", "b0193c31edc62935cb8cc69549a1f416cbbab42f", "tr", whole=True
    ),
    Repository(
        "global-asp/pb-source", "9ea530dfb0011dd1cbaf42e6ffe74aa3ef5733ed", "te", whole=True
    ),
    Repository(
        "global-asp/global-pb", "f910f18523002645aa6e3694059ea0d56641d52c", "zu", whole=True
    ),
)

_ALL = (
    Home("afriqa", (AFRIQA,), "CC BY 4.0 (passages: Wikipedia, CC BY-SA)", 7.0, "88ded6634ccddfe844f90bdae17035f5e7d8ce602226a337af0467f9565784f9", build_afriqa),
    Home("amharic-qa", (AMQA,), "MIT", 2.5, "687dbcbb7ab36326f3545937c4b67a7b77a91e924a02cf17adb5d3ee621759a2", build_amqa),
    Home("tydi-goldp", (TYDI,), "Apache-2.0 (passages: Wikipedia, CC BY-SA)", 6.3, "1cb5956abc76b7809b7a98e6132c6f5d93841db6a78d8165886cd397c37859fc", build_tydi),
    Home("xquad-ro", (XQUAD,), "CC BY-SA 4.0", 0.7, "abd1215067f1b2264688caa8ba8499a65bb7af61f568c8e0112461351482100b", build_xquad_ro),
    Home("belebele-sib", (ITEMS, SIB200), "CC BY-SA 4.0", 32.0, "20c7e3ede7cda9381e43190fc6b6514a3a814aafcd763b9e9c55231b68abfbf5", build_belebele_sib),
    Home("sib200", (SIB200,), "CC BY-SA 4.0", 30.0, "6e002f6b0347402bead45ff257526831bfdabd6706f4ad27db0f167747cc79be", build_sib200),
    Home("ntrex", (NTREX,), "CC BY-SA 4.0", 35.0, "f4994617eae4112c4a4986003509a7d971219bc478242e9fa384c2c66f5959eb", build_ntrex),
    Home("tico19", (TICO19,), "CC0 1.0", 13.4, "4296fdfde9c1a0f841c0cf98eb108dedce007020f3d24a0acff2701c2c23ebed", build_tico19),
    Home("tatoeba", (LASER,), "CC BY 2.0 FR", 6.7, "ce8423d68090ce0d68692bcccc3cb90d79173bc984cdd2d2550e279d91942b99", build_tatoeba),
    Home("mkqa-mia", (MKQA_MIA,), "CC BY-SA 3.0", 1.1, "6fd5d2e4e0af93de9023f36d72fb4d7dcbfc3bb2c49779614f96185c8b84bae3", build_mkqa_mia),
    Home("exams", (EXAMS,), "CC BY-SA 4.0", 4.0, "e8f1daf85a5fd95a4a4656cbcc74e1a178626444d4c5cef32846e1923b938c40", build_exams),
    Home("lafand-mt", (LAFAND,), "CC BY-NC 4.0 (data set); texts: as the news sites say", 31.0, "c19e44d0c942a7b10cc51cb1b7f50d202691deba1877fdb51c3ebdfae9ac9c26", build_lafand),
    Home("bible", (BIBLE, KING_JAMES), "CC0 1.0 (mark-up); King James Version: public domain", 21.0, "de53401afed69c9897a2d378a685add7deb606ec7dbe57937a80919f70e0cf4a", build_bible),
    Home("stories", STORIES, "per story: CC BY (most), CC BY-NC, CC BY-NC-SA, public domain", 5.7, "87bb3247cbb711b013d77f03e725285d77c6580bb4d76ae0345a1d5af1b7d952", build_stories),
)  # fmt: skip
HOMES: Mapping[str, Home] = {home.folder: home for home in _ALL}
