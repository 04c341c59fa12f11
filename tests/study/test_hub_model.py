"""A hub model's facts, asked over HTTP from a server that answers as the hub does."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
GOOD = {
    "id": "owner/model",
    "sha": COMMIT,
    "config": {"architectures": ["BertForMaskedLM"], "model_type": "bert"},
    "siblings": [{"rfilename": "config.json"}, {"rfilename": "model.safetensors"}],
    "safetensors": {"parameters": {"F32": 1234}, "total": 1234},
}


class Hub(BaseHTTPRequestHandler):
    """Answers ``/api/models/NAME``."""

    models: ClassVar[dict[str, Any]] = {
        "owner/model": GOOD,
        "owner/pickle": GOOD | {"siblings": [{"rfilename": "pytorch_model.bin"}]},
        "owner/code": GOOD | {"config": {"model_type": "homemade", "auto_map": {"AutoModel": "x.Y"}}},
        "owner/bare": {"id": "owner/bare", "sha": COMMIT, "siblings": GOOD["siblings"]},
    }
    errors: ClassVar[dict[str, tuple[int, str]]] = {
        "owner/gated": (403, "GatedRepo"),
        "owner/moved": (404, "RevisionNotFound"),
        "owner/broken": (500, ""),
    }

    def do_GET(self) -> None:
        name = "/".join(self.path.partition("?")[0].split("/")[3:5])
        status, code = self.errors.get(name, (200, "") if name in self.models else (404, "RepoNotFound"))
        body = json.dumps(self.models.get(name, {"error": "no"})).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Keep the test's output clean."""


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    """The address of the server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


CODE = """
import json, sys
from dataclasses import asdict
from tests.study.samples import CATALOGUE, STUDY
from tuner.study.file import parse_study
from tuner.study.check import check_study
from pathlib import Path
for line in sys.argv[1:]:
    spec = parse_study(STUDY.replace("owner/model", line), source="s", base=Path("/nowhere"), catalogue=CATALOGUE)
    report = check_study(spec, catalogue=CATALOGUE)
    assert report.spec.revision == (report.model.revision if report.model else spec.revision)
    about = [
        [found.message for found in findings if found.key in ("model", "revision")]
        for findings in (report.problems, report.warnings)
    ]
    print(json.dumps([report.model and asdict(report.model), *about]))
"""


def ask(endpoint: str, home: Path, *models: str) -> list[tuple[dict[str, Any] | None, list[str], list[str]]]:
    """What the reader says of models, in a fresh process: the client reads its settings when it is imported."""
    settings = {"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "HF_HOME": str(home), "PATH": "", "HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", CODE, *models],
        cwd=Path(__file__).parents[2],
        env=settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_models_on_the_hub(hub: str, tmp_path: Path) -> None:
    names = ["owner/model", f"owner/model\nrevision: {COMMIT}", "owner/bare", "owner/pickle", "owner/code"]
    names += ["owner/nobody", "owner/gated", "owner/moved\nrevision: v9"]
    good, pinned, bare, pickle, code, nobody, gated, moved = ask(hub, tmp_path, *names)

    assert good[0] is not None
    assert good[0]["parameters"] == 1234
    assert (good[0]["architecture"], good[0]["model_type"], good[0]["revision"]) == ("BertForMaskedLM", "bert", COMMIT)
    assert good[1] == []
    assert good[2] == [f"revision: no revision is given; the study is pinned to {COMMIT}"]
    assert pinned[1:] == ([], [])
    assert bare[0] is not None
    assert bare[0]["parameters"] == 0
    assert "owner/pickle has no safetensors file (pytorch_model.bin is a pickle" in pickle[1][0]
    assert "owner/code wants to run its own code; refused" in code[1][0]
    assert nobody[1] == [
        'model: "owner/nobody" is not on the hub, or is private; check the name, or log in with `hf auth login`'
    ]
    assert gated[1] == ['model: "owner/gated" is gated; accept its terms on the hub and log in with `hf auth login`']
    assert moved[1] == ['revision: "owner/moved" has no revision "v9"']


def test_hub_that_fails_or_is_away(hub: str, tmp_path: Path) -> None:
    for endpoint, name in ((hub, "owner/broken"), ("http://127.0.0.1:9", "owner/model")):
        ((facts, problems, _),) = ask(endpoint, tmp_path, name)
        assert facts is None
        assert len(problems) == 1
        assert f'"{name}" is not on this machine and the hub cannot be reached (' in problems[0]
        assert problems[0].endswith("; name a local folder")
        assert "\n" not in problems[0]


def test_model_in_the_cache_needs_no_hub(tmp_path: Path) -> None:
    code = f"""
from tests.study.samples import write_model
from pathlib import Path
cache = Path({str(tmp_path)!r}) / "hub" / "models--owner--model"
write_model(cache / "snapshots" / "{COMMIT}")
(cache / "refs").mkdir()
(cache / "refs" / "main").write_text("{COMMIT}")
"""
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True, timeout=60)
    ((facts, problems, warnings),) = ask("http://127.0.0.1:9", tmp_path, "owner/model")
    assert not problems
    assert facts is not None
    assert (facts["parameters"], facts["revision"]) == (20, COMMIT)
    assert warnings == [f"revision: no revision is given; the study is pinned to {COMMIT}"]
