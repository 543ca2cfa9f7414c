"""The journal: what is written is read back, at any moment, after a crash, and from several threads."""

import json
import math
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snapfit.core.errors import BadInput, WorkFailed
from snapfit.training.journal import Journal, read_journal, settled_events


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "journal.jsonl"


def test_events_in_order_and_kind_first(path):
    with Journal(path) as journal:
        written = journal.append("step", step=1, loss=0.5)
        journal.append("note", text="第一\r\n步", nested={"a": [1, None, True]}, where=Path("x"))
        assert read_journal(path)[0] == written  # while it is still open
    raw = path.read_bytes()
    assert raw.count(b"\n") == 2
    assert b"\r" not in raw
    assert "第一".encode() in raw
    first, second = read_journal(path)
    assert list(first) == ["kind", "time", "step", "loss"]
    assert second["text"] == "第一\r\n步"
    assert second["nested"] == {"a": [1, None, True]}
    assert second["where"] == "x"


def test_time_never_falls_even_over_a_resume(path):
    with Journal(path) as journal:
        for _ in range(3):
            journal.append("step")
    lines = path.read_text().splitlines()
    late = json.loads(lines[-1]) | {"time": 5000.25}
    path.write_text("\n".join([*lines, json.dumps(late)]) + "\n")
    with Journal(path) as journal:
        journal.append("resume")
    times = [event["time"] for event in read_journal(path)]
    assert times == sorted(times)
    assert 5000.25 <= times[-1] < 5060


def test_numbers_that_json_does_not_have(path):
    with Journal(path) as journal:
        journal.append(
            "step", loss=math.nan, norm=-math.inf, rates=[1.0, math.inf], deep=[[math.nan, 2]],
            metrics={"nll": math.nan, "accuracy": 1.0},
        )  # fmt: skip
    assert "NaN" not in path.read_text()
    event = read_journal(path)[0]
    assert (event["loss"], event["loss_text"]) == (None, "nan")
    assert (event["norm"], event["norm_text"]) == (None, "-inf")
    assert (event["rates"], event["rates_text"]) == ([1.0, None], [1.0, "inf"])
    assert (event["deep"], event["deep_text"]) == ([[None, 2]], [["nan", 2]])
    assert event["metrics"] == {"nll": None, "nll_text": "nan", "accuracy": 1.0}


def test_arrays_and_tensors(path):
    with Journal(path) as journal:
        journal.append(
            "x", a=np.float32(0.5), b=np.int64(3), c=np.array([[1, 2]]), d=torch.tensor(2.5), e=np.True_,
            f=(1, 2), g=np.float64("nan"),
        )  # fmt: skip
    event = read_journal(path)[0]
    assert [event[key] for key in "abcdefg"] == [0.5, 3, [[1, 2]], 2.5, True, [1, 2], None]


def test_what_json_cannot_hold_writes_nothing(path):
    with Journal(path) as journal:
        journal.append("good")
        with pytest.raises(TypeError, match="object"):
            journal.append("bad", thing=object())
        with pytest.raises(ValueError, match="time"):
            journal.append("bad", time=3)
        journal.append("good")
    assert [event["kind"] for event in read_journal(path)] == ["good", "good"]


def test_as_a_callback(path):
    with Journal(path) as journal:
        for event in ({"kind": "step", "step": 1}, {"step": 2, "kind": "step"}):
            journal(event)
    assert [event["step"] for event in read_journal(path)] == [1, 2]


def test_a_torn_last_line_is_left_out_and_cut_off_on_resume(path):
    with Journal(path) as journal:
        journal.append("one")
        journal.append("two", text="é")
    whole = path.read_bytes()
    second = whole.index(b"\n") + 1
    for length in range(second, len(whole)):
        path.write_bytes(whole[:length])
        assert [event["kind"] for event in read_journal(path)] == ["one"]
        with Journal(path) as journal:
            journal.append("three")
        assert [event["kind"] for event in read_journal(path)] == ["one", "three"]
    path.write_bytes(whole + b"\0\0\0\n")  # what a power cut may leave
    assert [event["kind"] for event in read_journal(path)] == ["one", "two"]


@pytest.mark.parametrize("line", ["{", "[1]", '{"no": "kind"}', ""])
def test_a_damaged_line_inside_is_named(path, line):
    path.parent.mkdir()
    path.write_text(f'{{"kind": "a", "time": 0}}\n{line}\n{{"kind": "b", "time": 1}}\n')
    for use in (read_journal, Journal):
        with pytest.raises(BadInput, match="line 2: not an event"):
            use(path)


def test_missing_and_unwritable(path, tmp_path):
    with pytest.raises(BadInput, match="cannot be read"):
        read_journal(path)
    with pytest.raises(WorkFailed, match="cannot be written"):
        Journal(tmp_path)
    (tmp_path / "empty").touch()
    assert read_journal(tmp_path / "empty") == []


def test_closed(path):
    journal = Journal(path)
    journal.close()
    journal.close()
    with pytest.raises(ValueError, match="closed"):
        journal.append("late")


def test_threads(path):
    with Journal(path) as journal:
        threads = [
            threading.Thread(target=lambda n=n: [journal.append("x", n=n, i=i) for i in range(50)]) for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    events = read_journal(path)
    assert sorted((event["n"], event["i"]) for event in events) == [(n, i) for n in range(4) for i in range(50)]
    times = [event["time"] for event in events]
    assert times == sorted(times)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(fields=st.dictionaries(st.text().filter(lambda key: key not in ("kind", "time")), plain, max_size=4))
def test_any_fields_come_back(tmp_path_factory, fields):
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    with Journal(path) as journal:
        journal.append("any", **fields)
    (event,) = read_journal(path)
    assert {key: value for key, value in event.items() if key not in ("kind", "time")} == fields


# ---------------------------------------------------------------- synced, and read as what became of a run


def test_what_was_synced_is_in_the_file(path):
    with Journal(path) as journal:
        journal.sync()
        journal.append("step", number=1)
        journal.sync()
        assert [event["kind"] for event in read_journal(path)] == ["step"]
    with pytest.raises(ValueError, match="closed"):
        journal.sync()


def step(number):
    return {"kind": "step", "number": number}


def of(kind, number, **more):
    return {"kind": kind, "step": number, **more}


def told(events):
    """(kind, step) of what is left."""
    return [(event["kind"], event.get("number", event.get("step"))) for event in settled_events(events)]


@pytest.mark.parametrize("kind", ["resume", "rollback"])
def test_steps_that_were_done_again_stand_once(kind):
    events = [
        {"kind": "data"}, of("start", 0), step(1), step(2), of("evaluation", 2), of("checkpoint", 2), step(3),
        of("evaluation", 3), of("checkpoint_failed", 3), of("fault", 4), of("memory", 4), of("collapsed", 3),
        of("early_stop", 4), of("final", 4), of(kind, 2), of("start", 2), step(3), step(4),
    ]  # fmt: skip
    assert told(events) == [
        ("data", None), ("start", 0), ("step", 1), ("step", 2), ("evaluation", 2), ("checkpoint", 2),
        (kind, 2), ("start", 2), ("step", 3), ("step", 4),
    ]  # fmt: skip


def test_going_back_again_and_again():
    events = [
        step(1), step(2), step(3), of("resume", 2), step(3), step(4), of("rollback", 1, from_step=4), step(2),
        of("resume", 0), step(1), of("resume", 1),
    ]  # fmt: skip
    # An earlier going back is no event of a step: it stays, as the record of what happened.
    assert told(events) == [
        ("resume", 2), ("rollback", 1), ("resume", 0), ("step", 1), ("resume", 1),
    ]  # fmt: skip


def test_without_going_back_all_stands():
    events = [{"kind": "data"}, step(1), of("evaluation", 1), {"kind": "end", "steps": 1}]
    assert settled_events(iter(events)) == events
    assert settled_events([]) == []


def test_a_journal_that_cannot_be_opened_is_no_journal(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(WorkFailed, match="cannot be written"):
        Journal(tmp_path / "file" / "journal.jsonl")


def test_a_disk_that_fills_up_is_work_that_failed():
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    journal = Journal.__new__(Journal)  # the constructor would read the device without end
    journal.path, journal._lock, journal._latest, journal._origin = full, threading.Lock(), 0.0, 0.0
    journal._file = open(full, "wb")  # noqa: SIM115
    with pytest.raises(WorkFailed, match="No space left"):
        journal.append("step")
    with pytest.raises(WorkFailed, match="No space left"):
        journal.close()  # what could not be written is told again, and not lost in silence
    journal.close()
