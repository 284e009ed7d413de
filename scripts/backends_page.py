"""Write docs/backends.md's table from what `bench.worker.check` found.

``python scripts/backends_page.py --collect NAME.json …`` takes new answers, each the file that
``python -m bench.worker.check BACKEND --out ENVIRONMENT.BACKEND.json`` wrote, into
docs/backends.json; without, the page is rendered again from what is there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from compilers import registry

DOCS = Path(__file__).resolve().parents[1] / "docs"
BEGIN = "<!-- table: written by scripts/backends_page.py -->"
END = "<!-- end of table -->"
KEPT = ("backend", "ok", "reason", "device", "max_abs_diff", "first_call_s", "lossy", "versions")
ABOUT = ("python", "torch", "diffusers")


def table(answers: list[dict[str, Any]]) -> str:
    """Return the Markdown table: a row for each answer, and one for each backend without any."""
    lines = [
        "| backend | environment | device | works | largest difference from eager | versions |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in registry.BUILT_IN:
        label = f"`{name}`{' (lossy)' if registry.get(name).lossy else ''}"
        found = [answer for answer in answers if answer["backend"] == name]
        if not found:
            environment = registry.get(name).environment
            lines.append(f"| {label} | {environment} |  | not checked yet |  |  |")
        for answer in found:
            works = "yes" if answer["ok"] else f"no: {_cell(answer['reason'])}"
            difference = answer["max_abs_diff"]
            shown = "" if difference is None else f"{difference:.1e}"
            lines.append(
                f"| {label} | {answer['environment']} | {answer['device']} | {works} | {shown} | "
                f"{_versions(answer['versions'])} |"
            )
    return "\n".join(lines)


def page(text: str, answers: list[dict[str, Any]]) -> str:
    """Return the page ``text`` with its table replaced."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(answers)}\n{END}{after}"


def merged(known: list[dict[str, Any]], files: list[Path]) -> list[dict[str, Any]]:
    """Return the answers with those of ``files`` in place of older ones of the same kind."""
    found = {(a["backend"], a["environment"], a["device"]): a for a in known}
    for file in files:
        answer = json.loads(file.read_text(encoding="utf-8"))
        kept = {key: answer[key] for key in KEPT} | {"environment": file.name.partition(".")[0]}
        found[kept["backend"], kept["environment"], kept["device"]] = kept
    return sorted(found.values(), key=lambda a: (a["backend"], a["environment"], a["device"]))


def _versions(versions: dict[str, str]) -> str:
    own = [f"{k} {v}" for k, v in versions.items() if k not in (*ABOUT, "transformers", "triton")]
    return ", ".join([*(f"{k} {versions[k]}" for k in ABOUT if k in versions), *own])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--collect", nargs="*", type=Path, default=[])
    given = parser.parse_args()
    store, target = DOCS / "backends.json", DOCS / "backends.md"
    known = json.loads(store.read_text(encoding="utf-8")) if store.is_file() else []
    answers = merged(known, given.collect)
    store.write_text(json.dumps(answers, indent=1) + "\n", encoding="utf-8")
    target.write_text(page(target.read_text(encoding="utf-8"), answers), encoding="utf-8")


if __name__ == "__main__":
    main()
