"""The workflows, read as YAML, against the one page that says what they are: .github/policy.toml.

No rule searches for a particular weakness. The whole workflow is derived from that page and compared with the file, so
every difference is found.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.tokens import AliasToken, AnchorToken, DirectiveToken, TagToken

POLICY = Path(".github/policy.toml")
FOLDER = Path(".github/workflows")
ZIZMOR = Path(".github/zizmor.yml")
_TRICKS = (AliasToken, AnchorToken, DirectiveToken, TagToken)
# What makes make go on after a failure, use another shell, or read more than its own file.
_MAKE_TRICKS = re.compile(
    r"^(?!\t)(?=.*(?:\.IGNORE|\.SHELLFLAGS|\.ONESHELL|MAKEFLAGS|\bSHELL\b|\binclude\b|\bdefine\b|\beval\b)).*$",
    re.MULTILINE,
)
_USE = re.compile(r"^ *(?:- )?uses: +(\S+@\S+) +# (\S+)$", re.MULTILINE)


def wanted(policy: dict[str, Any], name: str) -> dict[str, Any]:
    """The workflow of this name as the policy wants it, without display names."""
    actions = {short: long.partition(" ")[0] for short, long in policy["actions"].items()}

    def step(said: str | dict[str, Any]) -> dict[str, Any]:
        spelled: dict[str, Any] = policy["steps"].get(said, {"run": said}) if isinstance(said, str) else said
        return {**spelled, "uses": actions[spelled["uses"]]} if "uses" in spelled else spelled

    found: dict[str, Any] = {**policy[name], "permissions": {}, "jobs": {}}
    for key, said in policy[name]["jobs"].items():
        default = {} if "uses" in said else {"runs-on": "ubuntu-24.04", "timeout-minutes": 10}
        job = {**default, "permissions": {"contents": "read"}, **said}
        found["jobs"][key] = {**job, "steps": [step(one) for one in job["steps"]]} if "steps" in job else job
    return plain(found)  # type: ignore[no-any-return]


def plain(value: Any) -> Any:
    """A value without what is there for a reader alone, and with no difference between an empty value and none."""
    if isinstance(value, dict):
        free = {key for key in ("name", "description") if isinstance(value.get(key), str) and not _is_data(value)}
        return {key: plain(inner) for key, inner in value.items() if key not in free}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value.strip() if isinstance(value, str) else "" if value is None else value


def _is_data(value: dict[str, Any]) -> bool:
    """Whether `name` means something here, as to an environment or an artifact, and is not for a reader alone."""
    return not {"jobs", "steps", "uses", "run", "value"} & set(value)


def read(path: Path) -> dict[str, Any]:
    """A YAML file as plain data. Raises ValueError if it is not YAML, or uses a feature that parsers disagree about."""
    text = path.read_text(encoding="utf-8")
    try:
        if odd := [token for token in YAML().scan(text) if isinstance(token, _TRICKS)]:
            raise ValueError(f"line {odd[0].start_mark.line + 1}: no anchors, aliases, tags or directives")
        found = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise ValueError(str(error).replace("\n", " ")) from error
    if not isinstance(found, dict):
        raise ValueError("is not a mapping")
    return found


def differences(want: Any, got: Any, where: str) -> Iterator[str]:
    """Where two values part, each place by its path."""
    if isinstance(want, dict) and isinstance(got, dict):
        for key in sorted({*want, *got}, key=str):
            if key not in want or key not in got:
                yield f"{where}.{key} is {'not there' if key in want else f'not in the policy: {got[key]!r}'}"
            else:
                yield from differences(want[key], got[key], f"{where}.{key}")
    elif isinstance(want, list) and isinstance(got, list) and len(want) == len(got):
        for number, pair in enumerate(zip(want, got, strict=True), 1):
            yield from differences(*pair, f"{where}.{number}")
    elif (type(want), want) != (type(got), got):
        yield f"{where} is {got!r}, not {want!r}"


def workflow_faults(policy: dict[str, Any], name: str, path: Path) -> Iterator[str]:
    """All in which one workflow differs from the policy; the comment beside a commit names its tag."""
    try:
        yield from differences(wanted(policy, name), plain(read(path)), name)
    except ValueError as error:
        yield f"{name}: {error}"
    text = path.read_text(encoding="utf-8")
    named = _USE.findall(text)
    for use in sorted({f"{use} {tag}" for use, tag in named} - set(policy["actions"].values())):
        yield f"{name}: {use} is not what the policy calls it"
    if len(named) != len(re.findall(r"\buses: +(?!\./)", text)):
        yield f"{name}: an action has no tag in a comment beside it"


def faults(root: Path) -> list[str]:
    """All in which the workflows, the Makefile's gates and zizmor's settings of a checkout differ from its policy."""
    policy = tomllib.loads((root / POLICY).read_text(encoding="utf-8"))
    names = {name for name in policy if name.endswith(".yml")}
    there = {path.relative_to(root / FOLDER).as_posix() for path in (root / FOLDER).rglob("*") if not path.is_dir()}
    found = [f"{name}: is {'not there' if name in names else 'not in the policy'}" for name in sorted(names ^ there)]
    for name in sorted(names & there):
        found += workflow_faults(policy, name, root / FOLDER / name)
    found += makefile_faults(policy["makefile"], (root / "Makefile").read_text(encoding="utf-8"))
    allowed = sorted(long.partition("@")[0] for long in policy["actions"].values())
    rules = {"forbidden-uses": {"config": {"allow": allowed}}, "self-repository": {"disable": True}}
    return [*found, *differences({"rules": rules}, read(root / ZIZMOR), ZIZMOR.name)]


def makefile_faults(rules: dict[str, str], text: str) -> Iterator[str]:
    """The targets that the workflows run do what the policy says, and nothing tells make to let a failure pass."""
    yield from (f"Makefile: {trick[0]!r} is not in the policy" for trick in _MAKE_TRICKS.finditer(text))
    for name, said in rules.items():
        # A variable's every line, or a target's every rule with its recipe, whatever else that rule makes.
        variable = rf"^.*\b{name}\b *[:?+!]{{0,3}}=.*\n"
        rule = rf"^(?:[^\t\n:=#]*\s)?{name}(?:\s[^\n:=]*)?::?(?!=).*(?:\n\t.*)*\n"
        found = re.findall(variable if name.isupper() else rule, text, re.MULTILINE)
        if [re.sub(r" ## .*", "", one).strip() for one in found] != [said.strip()]:
            yield f"Makefile: {name} is not what the policy says"
