"""The runner of the pages can tell right from wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.docs.console import Example, Shell, environment, examples, matches

PAGE = """# A page

```console
$ echo one; echo 2026-11-21 two
one
… two
$ printf 'a\\nb\\nc\\n' |
> tail -n 2
…
c
$ export CODE=3
$ exit $CODE
[3]
```

```python
print("a program")
```

```sh
$ not run
```
"""


def _example(command: str, *output: str, exit_code: int = 0) -> Example:
    return Example("page.md", 1, command, output, exit_code)


def test_a_page_is_read_and_run(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, "utf-8")
    found = list(examples(page))
    assert [(example.line, example.exit_code) for example in found] == [(4, 0), (7, 0), (11, 0), (12, 3), (17, 0)]
    shell = Shell(tmp_path, environment(Path(sys.executable).parent))
    for example in found:
        shell.run(example)


@pytest.mark.parametrize(
    "example",
    [
        _example("echo other", "one"),
        _example("echo one; echo more", "one"),
        _example("false"),
        _example("true", exit_code=1),
        _example("true", "one"),
    ],
)
def test_what_differs_is_an_error(tmp_path: Path, example: Example) -> None:
    with pytest.raises(AssertionError):
        Shell(tmp_path, environment(tmp_path)).run(example)


def test_a_dotted_line_stands_for_any_lines() -> None:
    assert matches(["a", "…", "z"], ["a", "z"])
    assert matches(["a", "…", "z"], ["a", "b", "c", "z"])
    assert not matches(["a", "…", "z"], ["a", "b"])
    assert not matches(["took … s"], ["took 1 s", "took 2 s"])
