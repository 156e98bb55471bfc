"""``make bench --compare`` tells a slower machine from slower code, by comparing with the peers."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import children

BENCHES = Path(__file__).parents[2] / "benches"


def told(old: dict[str, float], new: dict[str, float], *, size: int = 1 << 30) -> list[str]:
    """What the comparison says of two runs, each given as the seconds of each program by name."""
    done = children.run(
        """
        import json, sys
        sys.path.insert(0, sys.argv[1])
        from measure import Usage
        from page import changes
        from report import Contender, Result

        def result(best, size):
            contenders = [
                Contender(name, "1", 16, [Usage(wall, 1.0, 1.0, 1, 0), Usage(2 * wall, 1.0, 1.0, 1, 0)])
                for name, wall in best.items()
            ]
            return Result.from_dict(Result("http-1g", "one file", size, 1, contenders).to_dict())

        old, new = map(json.loads, sys.argv[2:4])
        print("\\n".join(changes([result(old, 1 << 30)], [result(new, int(sys.argv[4]))])))
        """,
        *(BENCHES, str(old).replace("'", '"'), str(new).replace("'", '"'), size),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("ours", "said"),
    [
        (1.0, "SLOWER, 2.00 x beside them (1.00 x by the clock)"),
        (0.5, "as before, 1.00 x beside them (0.50 x by the clock)"),
        (0.4, "faster, 0.80 x beside them (0.40 x by the clock)"),
    ],
)
def test_what_changed_is_told_beside_the_peers(ours: float, said: str) -> None:
    lines = told({"rangefetch": 1.0, "curl": 2.0, "axel": 4.0}, {"rangefetch": ours, "curl": 1.0, "axel": 2.0})
    assert lines == ["http-1g: the peers took 0.50 x the time that they took then", f"  rangefetch: {said}"]


def test_a_peer_that_is_new_or_gone_is_not_compared() -> None:
    lines = told({"rangefetch": 1.0, "curl": 2.0}, {"rangefetch": 1.0, "axel": 9.0})
    assert lines[1] == "  rangefetch: as before, 1.00 x beside them (1.00 x by the clock)"


def test_another_size_is_not_compared() -> None:
    assert told({"rangefetch": 1.0}, {"rangefetch": 1.0}, size=5) == [
        "http-1g: not in the other report, or with another size"
    ]
