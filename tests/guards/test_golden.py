"""Every file of reference numbers is read by a test, and nothing in one goes unlooked at unless it is said why."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parents[1]
TEXT = "\n".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py"))


def test_every_file_of_reference_numbers_is_read(golden_root):
    files = [path for path in golden_root.rglob("*") if path.suffix in (".json", ".safetensors")]
    assert len(files) >= 20
    unread = [str(path.relative_to(golden_root)) for path in files if not _named(path)]
    assert not unread


def _named(path: Path) -> bool:
    """Return whether a test names the file and its folder, whole or by what is put into `clip_{…}`."""
    return f'"{path.parent.name}"' in TEXT and path.stem.removeprefix("clip_") in TEXT


def test_every_number_of_ltu_is_compared(golden_root):
    """By the last part of its name, which the tests write out."""
    from safetensors import safe_open

    ends = set()
    for path in (golden_root / "ltu").glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            ends |= {name.rsplit(".", 1)[-1] for name in file.keys() if "weights." not in name}  # noqa: SIM118
    assert sorted(end for end in ends if f'{end}"' not in TEXT and f"{end}'" not in TEXT) == []
