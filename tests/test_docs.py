"""The documentation says what the code does: links, columns, settings, paths, messages and variables."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import typer

from dn2 import layout
from dn2.store import schemas
from dn2.store.schema import Schema
from dn2.store.schemas import CLEANING, EMBEDDINGS, GROUP_CALIBRATION, GROUPS, MANIFEST, MEMBERS, REPORT, SCHEMAS
from docs.reference import make_page
from flows.cli import app
from flows.sources_file import NightlySource, SourcesFile, WatchedPrefix

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "deployments" / "README.md"])


def text_of(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def without_code(text: str) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def anchors(text: str) -> set[str]:
    """The names a browser can jump to: headings in lower case, spaces as dashes, without other marks."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def first_cells(text: str, header: str) -> list[str]:
    """The first cell of every row of the tables whose first header is `header`."""
    cells, inside = [], False
    for line in text.splitlines():
        first = line.split("|")[1].strip() if line.startswith("|") else ""
        inside = first == header or (inside and bool(first))
        if inside and first != header and not first.startswith("---"):
            cells.append(first)
    return cells


def names_in(cells: list[str]) -> list[str]:
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text("utf-8"))):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert ROOT in there.parents, target
        assert not anchor or anchor in anchors(there.read_text("utf-8")), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_page_has_one_title_and_whole_tables(page: Path):
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1, table


def test_index_leads_to_every_page_of_docs():
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", text_of("docs/index.md")))
    assert linked == {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}


def test_decisions_are_numbered_without_gaps():
    names = sorted(path.name for path in (ROOT / "docs" / "decisions").iterdir())
    assert [name[:5] for name in names] == [f"{number:04d}-" for number in range(1, len(names) + 1)]
    for name in names:
        assert text_of(f"docs/decisions/{name}").startswith(f"# {name[:4]} ")


@pytest.mark.parametrize(
    ("page", "schema"),
    [
        ("README.md", REPORT),
        ("docs/cleaning.md", CLEANING),
        ("docs/reports.md", REPORT),
        ("docs/manifests-and-datasets.md", MANIFEST),
        ("docs/embeddings.md", EMBEDDINGS),
    ],
)
def test_columns_listed_are_those_of_the_schema_in_order(page: str, schema: Schema):
    assert names_in(first_cells(text_of(page), "column")) == schema.columns.names


def test_columns_listed_for_groups_are_those_of_their_three_schemas():
    names = [*GROUP_CALIBRATION.columns.names, *GROUPS.columns.names, *MEMBERS.columns.names]
    assert names_in(first_cells(text_of("docs/groups.md"), "column")) == names


def test_reference_is_what_the_code_says():
    """If it is not: `make reference` writes it anew."""
    assert text_of("docs/reference.md") == make_page()


def test_reference_describes_every_schema_column_and_setting():
    """In a sentence, not by nothing."""
    assert [one.name for one in SCHEMAS] == list(dict.fromkeys(one.name for one in SCHEMAS))
    for schema in SCHEMAS:
        assert re.fullmatch(r"[A-Z].*\.", schema.row), schema.name
        assert [name for name in schema.columns.names if not schema.describe(name)] == []
    assert re.findall(r"^\| .*\| (?:None)? \|$", text_of("docs/reference.md"), re.MULTILINE) == []


def test_every_schema_of_the_store_is_in_the_reference():
    named = {one.name for one in vars(schemas).values() if isinstance(one, Schema)}
    assert set(re.findall(r"^### (dn2\.\w+)$", text_of("docs/reference.md"), re.MULTILINE)) == named


def test_files_of_schemas_lie_where_the_layout_says():
    """Below one of the store's paths, which are compared with the layout elsewhere."""
    listed = names_in(first_cells(text_of("docs/store.md"), "path"))
    places = [re.sub("^<segment>", layout.bank_segment.text, path) for path in listed]
    assert [one.name for one in SCHEMAS if not any(one.path.startswith(place) for place in places)] == []


def test_settings_page_leads_to_every_group_of_settings():
    sections = text_of("docs/reference.md").partition("\n## Settings\n")[2].partition("\n## ")[0]
    linked = re.findall(r"^\| \[(\w+Config)\]\(reference\.md#", text_of("docs/settings.md"), re.MULTILINE)
    assert linked == re.findall(r"^### (\w+)$", sections, re.MULTILINE)
    assert {"EmbedConfig", "ScoreConfig", "TellConfig"} <= set(linked)


def test_nightly_page_names_every_field_of_the_sources_file():
    text = text_of("docs/nightly.md")
    assert names_in(first_cells(text, "field")[: len(SourcesFile.model_fields)]) == list(SourcesFile.model_fields)
    assert names_in(first_cells(text, "field of `watch`")) == list(WatchedPrefix.model_fields)
    listed = re.search(r"^\| `nightly` \| none \| list of sources: (.*) \|$", text, re.MULTILINE)
    assert listed is not None
    assert [name for name in names_in([listed[1]]) if name != "default"] == list(NightlySource.model_fields)


def test_reference_names_the_options_of_every_command():
    sections = re.split(r"^### dn2 ", text_of("docs/reference.md"), flags=re.MULTILINE)[1:]
    listed = {
        section.partition("\n")[0]: set(re.findall(r"^\| `(--[\w-]+)`", section.partition("\n## ")[0], re.MULTILINE))
        for section in sections
    }
    commands = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", None)  # of a group of commands
        commands |= {name: command} if below is None else {f"{name} {one}": below[one] for one in below}
    real = {
        name: {option for one in command.params for option in one.opts if option.startswith("--")}
        - {"--help", "--verbose"}
        for name, command in commands.items()
    }
    assert listed == real


def test_store_page_names_every_path_of_the_layout():
    """Each kind of path, and what is appended to that of a segment; a name that is no path is listed nowhere."""
    listed = set(names_in(first_cells(text_of("docs/store.md"), "path")))
    forms = {name: form.text for name, form in vars(layout).items() if isinstance(form, layout.Form)}
    beside = {layout.bank_cells("<segment>"), layout.segment_cells("<segment>")}
    assert listed == {text for name, text in forms.items() if name != "part" and name[0] != "_"} | beside


def literals() -> str:
    """Every piece of text in the source of the library, the tasks and the flows, with its values cut out."""
    pieces = []
    for path in (path for room in ("dn2", "tasks", "flows") for path in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                pieces.append(node.value)
    return "\n".join(pieces)


def test_messages_explained_are_messages_of_the_code():
    source = literals()
    text = text_of("docs/troubleshooting.md")
    explained = names_in(first_cells(text, "message says") + first_cells(text, "warning says"))
    assert len(explained) > 25
    assert [message for message in explained if message not in source] == []


def codes_of_doubts() -> set[str]:
    """The codes that the library gives to its doubts."""
    found = set()
    for path in (ROOT / "dn2").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Doubt":
                found |= {one.value for one in node.args[:1] if isinstance(one, ast.Constant)}
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "promises":
                found |= {one.elts[0].value for one in node.value.elts}  # type: ignore[attr-defined]
    return found


def test_each_code_of_a_doubt_is_a_heading_of_its_page():
    headings = re.findall(r"^### (\S+)$", text_of("docs/doubts.md"), re.MULTILINE)
    assert len(headings) == len(set(headings)) > 10
    assert set(headings) == codes_of_doubts()


def width(text: ast.expr) -> int:
    """How wide a message is, a value counted as 12 characters; of two endings the longer one."""
    if isinstance(text, ast.Constant):
        return len(re.sub(r"%(\.\d+)?[a-z]", 12 * "-", str(text.value)))
    if isinstance(text, ast.JoinedStr):
        return sum(width(piece) for piece in text.values)
    if isinstance(text, ast.BinOp):
        return width(text.left) + width(text.right)
    if isinstance(text, ast.IfExp):
        return max(width(text.body), width(text.orelse))
    return 12


def messages() -> dict[str, int]:
    """How wide the message of each error that is raised, logged warning and doubt is, by its place."""
    found = {}
    for path in (path for room in ("dn2", "flows", "tasks", "deployments") for path in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            call = node.exc if isinstance(node, ast.Raise) else node
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Doubt" and len(call.args) > 1:
                found[f"{path.relative_to(ROOT)}:{call.lineno}"] = width(call.args[1])
            warns = isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "warning"
            if isinstance(call, ast.Call) and call.args and (warns or isinstance(node, ast.Raise)):
                found[f"{path.relative_to(ROOT)}:{call.lineno}"] = width(call.args[0])
    return found


def test_messages_fit_two_lines():
    found = messages()
    assert len(found) > 200
    assert max(found.values()) > 150
    assert {place: wide for place, wide in found.items() if wide > 200} == {}


def test_reject_reasons_explained_are_reasons_of_the_code():
    source = literals()
    explained = names_in(first_cells(text_of("docs/embeddings.md"), "reason"))
    parts = [part.strip() for reason in explained for part in reason.split("...") if part.strip()]
    assert len(parts) >= len(explained) == 12
    assert [part for part in parts if part not in source] == []


def test_environment_variables_that_dn2_sets_are_listed_with_their_values():
    code = "".join(path.read_text("utf-8") for path in sorted((ROOT / "flows").rglob("*.py")))
    real = re.findall(r'environ\.setdefault\("(\w+)", "(\w+)"\)', code)
    table = text_of("docs/operations.md").partition("set by dn2 to")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \| `(\w+)` \|", table, re.MULTILINE) == real
