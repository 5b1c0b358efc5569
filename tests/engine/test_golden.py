"""Golden journals (D11): what was journaled once gives the same events for ever, or is refused with
a sentence that says what to do.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from engine.crc32c import crc32c
from engine.disk import RealDisk
from engine.file_header import FILE_HEADER, FILE_HEADER_BYTES, FileRefused
from engine.kept_directory import open_kept
from engine.manifest import Manifest, ManifestError
from engine.records import LAYOUT_FINGERPRINT, RULES_VERSION, CommandKind, EventKind, RejectCode
from engine.verify import verify_shard
from tests.data.make_golden import EXPECTED, GOLDEN, make, outcome
from tests.engine.kept import all_events, journal_records

pytestmark = pytest.mark.flavour
AGAIN = "before a release: python -m tests.data.make_golden; after one: raise RULES_VERSION too"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(GOLDEN, tmp_path / "golden")
    for path in (tmp_path / "golden").rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return tmp_path / "golden"


def test_the_golden_journal_gives_what_it_gave() -> None:
    expected = json.loads((GOLDEN / EXPECTED).read_text())
    layouts = (expected["rules_version"], expected["layout_fingerprint"])
    assert layouts == (RULES_VERSION, LAYOUT_FINGERPRINT), f"the layouts changed; {AGAIN}"
    found = outcome(open_kept(str(GOLDEN)))
    assert found["event_crc"] == expected["event_crc"], f"other events come out; {AGAIN}"
    assert found == expected, AGAIN
    report = verify_shard(open_kept(str(GOLDEN)), 0)
    assert (report.damages, report.differences, report.notes) == ([], [], [])
    assert (report.state_hash, list(report.event_crc)) == (
        expected["state_hash"],
        expected["event_crc"],
    )


def test_the_golden_journal_has_every_kind_of_command_and_most_of_events() -> None:
    kept = open_kept(str(GOLDEN))
    records, events = journal_records(kept), all_events(kept, 0)
    # The kill switch was refused, as SET_LIMITS is here, when the journal was written.
    younger = {CommandKind.KILL_SWITCH}
    assert set(records["kind"].tolist()) == {int(kind) for kind in set(CommandKind) - younger}
    assert len(np.unique(records["epoch"])) > 1
    assert len(list((GOLDEN / "shard0").glob("journal-*"))) > 2
    kinds = {EventKind(kind).name for kind in np.unique(events["kind"])}
    assert kinds == {
        "ACCEPTED", "REJECTED", "REPLACED", "CANCELED", "EXPIRED", "BOOKED", "FILL", "PHASE",
        "LISTED", "SESSION", "ACCOUNT", "SUMMARY", "STATUS", "CONTINUED",
    }  # fmt: skip
    codes = {RejectCode(code).name for code in events["code"][events["kind"] == EventKind.REJECTED]}
    assert {"WOULD_TRADE", "UNKNOWN_ORDER", "NOT_SUPPORTED_HERE", "FOK_UNFILLED"} <= codes


def test_the_script_makes_the_same_bytes(tmp_path: Path) -> None:
    make(tmp_path / "again")
    old, new = (
        journal_records(open_kept(str(GOLDEN))),
        journal_records(open_kept(str(tmp_path / "again"))),
    )
    assert new.tobytes() == old.tobytes()
    assert (tmp_path / "again" / EXPECTED).read_text() == (GOLDEN / EXPECTED).read_text()


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        (
            "rules_version",
            RULES_VERSION + 1,
            rf"written under rules version {RULES_VERSION + 1}, this program has {RULES_VERSION}:"
            " start the old version once, stop it cleanly, then start this one",
        ),
        (
            "layout_fingerprint",
            LAYOUT_FINGERPRINT ^ 1,
            r"other record layouts \(fingerprint\): another version of the program wrote it;"
            " stop that version cleanly and start from its last snapshot",
        ),
    ],
)
def test_a_journal_of_another_version_is_refused(
    copy: Path, field: str, value: int, sentence: str
) -> None:
    path = min((copy / "shard0").glob("journal-*"))
    raw = bytearray(path.read_bytes())
    page = np.frombuffer(raw, FILE_HEADER, 1)
    page[field], page["header_crc"] = value, 0
    page["header_crc"] = crc32c(bytes(raw[:FILE_HEADER_BYTES]))
    path.write_bytes(raw)
    kept = open_kept(str(copy))
    with pytest.raises(FileRefused, match=sentence):
        journal_records(kept)
    [damage] = verify_shard(kept, 0).damages
    assert str(path) in damage


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("rules_version", RULES_VERSION + 1, "go on with the version that wrote it"),
        ("layout_fingerprint", 5, "with other record layouts: go on with the version that wrote"),
    ],
)
def test_a_manifest_of_another_version_is_refused(
    copy: Path, field: str, value: int, sentence: str
) -> None:
    import dataclasses

    manifest = Manifest.load(RealDisk(), str(copy))
    assert manifest is not None
    dataclasses.replace(manifest, **{field: value}).save(RealDisk(), str(copy))
    with pytest.raises(ManifestError, match=sentence):
        open_kept(str(copy))
