"""Where a rank is and how it ended can be read from outside its process."""

from __future__ import annotations

from runtime import progress


def test_where_a_rank_is_can_be_read_from_outside(tmp_path):
    progress.create(tmp_path, 3)
    memory = progress.attach(tmp_path)
    mine = progress.Progress(memory, 1)
    reader = progress.Progress(progress.attach(tmp_path), 1)
    assert reader.read() == (-1, False, 0)
    mine.enter(7)
    assert reader.read() == (7, False, 1)
    mine.wait(7)
    assert reader.read() == (7, True, 2)
    mine.leave()
    assert reader.read() == (-1, False, 3)
    assert progress.Progress(memory, 2).read() == (-1, False, 0)


def test_how_a_rank_ended_is_known_once_it_has(tmp_path):
    assert progress.end_of(tmp_path, 1) is None
    progress.note_end(tmp_path, 1, -9)
    assert (progress.end_of(tmp_path, 1), progress.end_of(tmp_path, 0)) == (-9, None)
