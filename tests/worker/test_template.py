from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from bench.worker import template


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forking is for Linux")
@pytest.mark.parametrize("gpu", [True, False])
def test_a_look_for_gpus_forbids_forks_only_where_it_found_one(monkeypatch, gpu):
    looks: list[str] = []
    cuda = SimpleNamespace(
        is_initialized=lambda: False, is_available=lambda: looks.append("look") or gpu
    )
    refuses = SimpleNamespace(_cuda_isInBadFork=lambda: True)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda, _C=refuses))
    monkeypatch.setattr(template.os, "listdir", lambda _path: ["1"])  # one thread, no device
    monkeypatch.setattr(template, "_close_nvml", lambda: looks.append("closed"))
    why = template.why_not_fork()
    assert (why is not None and "used the CUDA driver" in why) is gpu
    assert looks[-1] == "closed", "a fork inherits nothing of NVML"


class TestWorkingFolder:
    def left(self, monkeypatch: pytest.MonkeyPatch, first: str, *, asked: str | None) -> list[str]:
        monkeypatch.setattr(template.sys, "flags", SimpleNamespace())  # Python 3.10's
        monkeypatch.setattr(template.sys, "path", [first, "/further"])
        monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
        if asked is not None:
            monkeypatch.setenv("PYTHONSAFEPATH", asked)
        template.leave_working_folder()
        return list(template.sys.path)

    @pytest.mark.parametrize("first", ["", "."])
    def test_python_3_10_leaves_it(self, monkeypatch, first):
        assert self.left(monkeypatch, first, asked="1") == ["/further"]

    def test_unless_nobody_asked(self, monkeypatch):
        assert self.left(monkeypatch, "", asked=None) == ["", "/further"]

    def test_another_first_folder_stays(self, monkeypatch):
        assert self.left(monkeypatch, "/elsewhere", asked="1") == ["/elsewhere", "/further"]
