"""The table at the top of a report, which compares hybrid batches with their rivals."""

from hybridbatch.scaling.findings import Findings
from hybridbatch.scaling.report.html import Headline, Verdict
from hybridbatch.scaling.report.sentences import main_comparisons, rival, smallest_seen
from hybridbatch.scaling.report.tables import TableRow

FEW = 9  # rows that are read at a glance; more are summed up by measure and rival

RULE = (
    "The p value comes from one t test over seeds and questions at once, with Holm's correction"
    " inside a family (one rival on one task). Equivalent means that two one-sided t tests reject a"
    " difference as large as the margin. Undecided means that neither test rejects. If the"
    " difference is below the detectable one, these seeds and questions could hardly have shown it:"
    " one test alone finds a difference of the detectable size in four of five repetitions. With"
    " Holm's correction it takes a larger difference."
)


def headline(findings: Findings) -> Headline:
    """The main comparisons as rows of texts; empty if the report compares nothing."""
    rows = main_comparisons(findings)
    if not rows:
        return Headline()
    first = rows[0]
    several = len({row["task"] for row in rows}) > 1
    texts = [_texts(row, several) for row in rows]
    return Headline(
        summary=_summary(texts) if len(texts) > FEW else {},
        caption=(
            f"Hybrid batches (mix {first['mix']:g}) against their rivals with {first['pairs']:,}"
            " training records. mAP is in points of 100. Rank distance is in ranks, and lower is"
            " better."
        ),
        rows=texts,
        classes=[str(row.get("verdict", "")) for row in rows],
        rule=RULE,
    )


def _summary(rows: list[dict[str, str]]) -> dict[str, dict[str, Verdict]]:
    """The outcomes by measure, and by rival in the order of the rows."""
    rivals = dict.fromkeys(row["against"] for row in rows)
    none = Verdict("–", "not tested", "–")
    found: dict[str, dict[str, Verdict]] = {}
    for row in rows:
        told = Verdict(row["difference"], row["verdict"], row["detectable difference"])
        found.setdefault(row["measure"], dict.fromkeys(rivals, none))[row["against"]] = told
    return found


def _texts(row: TableRow, several_tasks: bool) -> dict[str, str]:
    distance = row["metric"] == "rank_distance"
    scale = 1 if distance else 100
    measure = f"{row['setting']} {'rank distance' if distance else row['metric']}"
    seen = smallest_seen(row)
    p = row.get("p_holm")
    return {
        "measure": f"{row['task']}: {measure}" if several_tasks else measure,
        "against": rival(row["against"]),
        "difference": f"{row['difference'] * scale:+.1f}",
        "verdict": str(row.get("verdict", "not tested")),
        "95 % interval": f"{row['low'] * scale:+.1f} to {row['high'] * scale:+.1f}",
        "p (Holm)": "–" if p is None else f"{p:.2g}",
        "detectable difference": "–" if seen is None else f"{seen * scale:.1f}",
        "hybrid": f"{row['mean'] * scale:.1f}",
        "the other": f"{row['mean_against'] * scale:.1f}",
    }
