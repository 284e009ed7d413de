from __future__ import annotations

from types import SimpleNamespace

import pytest

from bench.worker import template


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
    def test_python_3_10_leaves_it(self, monkeypatch: pytest.MonkeyPatch, first: str) -> None:
        assert self.left(monkeypatch, first, asked="1") == ["/further"]

    def test_unless_nobody_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.left(monkeypatch, "", asked=None) == ["", "/further"]

    def test_another_first_folder_stays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.left(monkeypatch, "/elsewhere", asked="1") == ["/elsewhere", "/further"]
