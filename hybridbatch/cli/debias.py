"""Commands about language bias: debias, audit-bias."""

from typing import Any

from hybridbatch.cli import console
from hybridbatch.cli.base import DEBIASING, command, reporter
from hybridbatch.scoring.audit_settings import AuditConfig
from hybridbatch.scoring.debias_settings import DebiasConfig


@command(
    DEBIASING,
    DebiasConfig,
    {"model": "MODEL"},
    examples=[
        "hybridbatch debias experiments/first --text texts/ --out experiments/vectors",
        "hybridbatch debias --vectors passages.npy --languages ids.txt --out experiments/fair.npy",
    ],
)
def debias(config: DebiasConfig) -> None:
    """Estimate language vectors from text by language, or remove them from an existing index."""
    from hybridbatch.common.files import read_json
    from hybridbatch.debias.vectors_file import FACTS
    from hybridbatch.scoring.debias import estimate, rewrite_index

    if config.vectors is not None:
        console.lines([str(path) for path in rewrite_index(config, reporter())])
        return
    folder = estimate(config, reporter())
    facts = read_json(folder / FACTS)
    console.table(_rows(facts), title=f"Language vectors of {facts['model']['name']}")
    console.path(folder)


@command(
    DEBIASING,
    AuditConfig,
    {"model": "MODEL"},
    name="audit-bias",
    examples=[
        "hybridbatch audit-bias experiments/first",
        "hybridbatch audit-bias my-encoder --vectors vectors/ --json",
    ],
)
def audit_bias(config: AuditConfig) -> None:
    """Measure which languages a model hides, and whether centring helps; write one HTML page."""
    from hybridbatch.scoring.audit_bias import CORRELATION, MEASURES, PAGE, audit

    folder, result = audit(config, reporter())
    rows = []
    for name, shown in {**MEASURES, **CORRELATION}.items():
        values = {
            label: round(line[name]["mean"], 3)
            for label, line in result["lines"].items()
            if name in line
        }
        rows.append({"measure": shown, **dict.fromkeys(result["lines"]), **values})
    console.table(rows, title=f"Pool of {len(result['languages'])} languages of {config.task}")
    console.lines([result["answer"], str(folder / PAGE)])


def _rows(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each side: source, languages, texts."""
    return [
        {
            "side": side,
            "source": facts["sources"].get(side, ""),
            "languages": len(counts),
            "texts": sum(counts.values()),
            "fewest": min(counts.values()),
        }
        for side, counts in facts["texts"].items()
    ]
