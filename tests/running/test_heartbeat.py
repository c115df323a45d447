"""The notes of how far work is."""

from itertools import pairwise

from tombola.running import heartbeat
from tombola.running.heartbeat import LONGEST, Heartbeat
from tombola.running.options import PROGRESS_EVERY, RunOptions
from tombola.running.store import Store


def test_notes_of_a_large_stack_take_a_small_share_of_the_time(tmp_path, monkeypatch):
    clock, noted = [100.0], []
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: clock[0])

    def moments(cost, runs):
        """Return when progress is noted in the following 30 seconds, if the note of one run takes `cost` seconds."""
        noted.clear()

        def note(self, identity, state):
            clock[0] += cost
            noted.append(identity)

        monkeypatch.setattr(Heartbeat, "_note", note)
        beat = Heartbeat(Store(tmp_path), RunOptions(), lambda: {str(run): {} for run in range(runs)})
        begun, found = clock[0], []
        while clock[0] < begun + 30:
            before = len(noted)
            now = clock[0]
            beat()
            assert len(noted) - before in (0, runs)
            found += [now - begun] * (len(noted) > before)
            clock[0] += 0.25
        return [round(b - a, 2) for a, b in pairwise(found)]

    assert set(moments(0.0, 1)) == {PROGRESS_EVERY + 0.25}
    assert max(moments(0.001, 64)) == 3.31  # 64 ms of 3.2 s, and the first call after that
    assert max(moments(0.01, 256)) < LONGEST + 3
