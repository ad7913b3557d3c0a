"""The pages agree with the program; `NF2VEC_WRITE_DOCS=1 pytest tests/test_docs.py` renews one."""

import os
import re
from pathlib import Path

import pytest

from nf2vec_cli import cli

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "cli.md"
HEAD = "# Command line\n\nEvery help page, as the program prints it.\n"


def lines() -> list[list[str]]:
    found: list[list[str]] = [[]]
    for name in cli.COMMANDS:
        found.append([name])
        found += [[name, inner] for inner in getattr(cli.load_command(name), "commands", {})]
    return found


def test_the_page_of_commands_is_what_help_prints(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERMINAL_WIDTH", "100")
    parts = [HEAD]
    for line in lines():
        text = re.sub(r" +$", "", run(*line, "--help").stdout.strip(), flags=re.MULTILINE)
        parts.append(f"\n## `{' '.join(['nf2vec', *line])}`\n\n```\n{text}\n```\n")
    page = "".join(parts)

    if os.environ.get("NF2VEC_WRITE_DOCS"):
        PAGE.write_text(page, encoding="utf-8")
    assert page == PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))])
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")

    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / page).parent / target).exists(), target


def test_every_file_the_architecture_names_exists():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = text.partition("```\nREADME")[2].partition("```")[0]

    for name in re.findall(r"\b(\w+\.py)\b", tree):
        assert list((ROOT / "nf2vec_cli").rglob(name)), name
