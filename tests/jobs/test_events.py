from __future__ import annotations

from pathlib import Path

import pytest

from napari_hyperst.nouns.events import EventLog, EventReader


def test_a_reader_sees_each_event_once_and_in_order(tmp_path: Path) -> None:
    log, reader = EventLog(tmp_path / "events.jsonl"), EventReader(tmp_path / "events.jsonl")
    assert reader.new() == []
    first = log.append("start", {"pid": 1})
    second = log.append("progress", {"what": "spots µm", "done": 1, "total": 2})
    assert reader.new() == [first, second]
    assert reader.new() == []
    last = log.append("done")
    assert reader.new() == [last]
    assert last.ends
    assert not first.ends


def test_half_a_line_is_left_for_later_and_a_killed_writers_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log, reader = EventLog(path), EventReader(path)
    log.append("start")
    with path.open("a") as file:
        file.write('{"kind": "progress", "ti')
    assert [event.kind for event in reader.new()] == ["start"]
    log.append("stopped")
    assert [event.kind for event in reader.new()] == ["stopped"]


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no event 'finished'"):
        EventLog(tmp_path / "events.jsonl").append("finished")
    assert list(tmp_path.iterdir()) == []
