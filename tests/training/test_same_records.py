"""`train --same-records` reaches the schedule, and the run says how many records it leaves."""

from hybridbatch.data.store.writer import write_store
from hybridbatch.training.settings import TrainConfig
from hybridbatch.training.train import plan
from tests.helpers.parallel import rows


def test_a_run_on_the_same_records_says_how_many_take_part(tmp_path):
    folder = tmp_path / "toy"
    whole = rows(24)
    first = whole[0].record_id
    short = [
        row for row in whole if row.record_id != first or row.language == whole[0].language
    ]
    write_store(folder, short, provenance={"sources": [{"name": "toy", "licence": "CC0-1.0"}]})
    told = {}
    for same in (False, True):
        config = TrainConfig(data=str(folder), batch_size=6, steps=8, same_records=same)
        told[same] = " ".join(plan(config)["schedule"]["notes"])
    # One of the 24 records is set aside for validation.
    assert "22 of 23 records are whole" in told[True]
    assert "same records" not in told[False]
