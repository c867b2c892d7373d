"""No call of a public function, whatever its arguments, does anything but return or raise an error that says why."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CALLS = 1000


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is bounded by what Linux says of it")
def test_hostile_calls_return_or_say_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(ROOT)
    from tests.fuzz.calls import run

    num_calls, findings = run(seconds=600, seed=0, most=CALLS)
    assert findings == []
    assert num_calls == CALLS
