"""Each kind of error against what becomes of its run."""

from __future__ import annotations

import errno
from types import SimpleNamespace

import huggingface_hub.errors
import pytest
import requests
import torch

from tuner.errors import (
    ConfigurationError,
    DataError,
    TemporaryError,
    TrialDiverged,
    TrialError,
    TrialInfeasible,
    UnavailableError,
)
from tuner.worker.verdicts import Judgement, judge


def raised_from(error: Exception, cause: Exception | None) -> Exception:
    """An error as it arrives when it was raised from another one."""
    try:
        raise error from cause
    except Exception as caught:  # noqa: BLE001 - whatever it is
        return caught


def raised_beside(error: Exception, first: Exception) -> Exception:
    """An error that came up while another one was dealt with."""
    try:
        try:
            raise first
        except Exception:  # noqa: BLE001 - as below
            raise error  # noqa: B904 - that it has no cause is the point
    except Exception as caught:  # noqa: BLE001 - whatever it is
        return caught


def hub_error(status: int) -> Exception:
    error = huggingface_hub.errors.HfHubHTTPError.__new__(huggingface_hub.errors.HfHubHTTPError)
    error.response = SimpleNamespace(status_code=status)  # type: ignore[assignment]
    return error


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (TrialInfeasible("lora.r 512 exceeds the width 256"), "infeasible"),
        (raised_from(TrialInfeasible("out of memory"), OSError(errno.EIO, "input/output error")), "infeasible"),
        (TrialDiverged("loss became non-finite"), "diverged"),
        (raised_beside(TrialDiverged("loss became non-finite"), ConnectionError()), "diverged"),
        (TrialError('no metric "f1" was reported'), "errored"),
        (DataError("rows.csv:7: empty label"), "errored"),
        (ConfigurationError("no such model"), "errored"),
        (KeyError("text"), "errored"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "errored"),
        (torch.AcceleratorError("CUDA error: device-side assert triggered", 710), "errored"),
        (FileNotFoundError(errno.ENOENT, "no such file"), "errored"),
        (PermissionError(errno.EACCES, "permission denied"), "errored"),
        (raised_from(DataError("rows.csv cannot be read"), FileNotFoundError(errno.ENOENT, "gone")), "errored"),
        (hub_error(404), "errored"),
        (raised_from(ValueError("bad"), None), "errored"),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_what_comes_again_is_not_tried_again(error: Exception, outcome: str) -> None:
    assert judge(error) == Judgement(outcome=outcome, may_pass=False)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "input/output error"),
        OSError(errno.ENOSPC, "no space left on device"),
        OSError(errno.ESTALE, "stale file handle"),
        ConnectionResetError(errno.ECONNRESET, "connection reset by peer"),
        TimeoutError("the read timed out"),
        UnavailableError("s3://bucket cannot be reached"),
        TemporaryError("try again later"),
        requests.exceptions.ReadTimeout("the hub is slow"),
        hub_error(503),
        hub_error(429),
        raised_from(DataError("hub://rows: cannot be read"), requests.exceptions.ConnectionError("no route")),
        raised_from(ConfigurationError("the model cannot be loaded"), raised_from(OSError("offline?"), TimeoutError())),
        raised_beside(ValueError("no rows"), ConnectionRefusedError(errno.ECONNREFUSED, "refused")),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_a_passing_fault_is_tried_again(error: Exception) -> None:
    assert judge(error) == Judgement(outcome="errored", may_pass=True)


def test_what_an_error_hides_on_purpose_does_not_count() -> None:
    try:
        try:
            raise ConnectionError
        except ConnectionError:
            raise ValueError("the rows are not JSON") from None
    except ValueError as error:
        assert not judge(error).may_pass


def test_errors_that_cause_each_other_come_to_an_end() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert not judge(one).may_pass
