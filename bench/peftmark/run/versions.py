"""Two versions of a library on the same suite: two environments, runs in turns, one table.

An environment holds only what its version needs anew; everything else it takes from the environment
that peftmark runs in, so that nothing else can differ.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from peftmark.core.errors import Exit, UserError
from peftmark.core.shown import without_secrets
from peftmark.sources.cache_folder import default_cache
from peftmark.sources.children import run_module
from peftmark.suite.load import load_suite

BASE = "peftmark_base.pth"
ASK_FOLDER = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Version:
    """One side.

    Attributes:
        requirements: what pip is to install, such as `peft==0.20.0`.
        python: the interpreter of its environment.
        results: its results folder.
    """

    requirements: tuple[str, ...]
    python: Path
    results: Path

    @property
    def shown(self) -> str:
        """The requirements for messages: without the passwords of URLs."""
        return shown(self.requirements)


def shown(requirements: Sequence[str]) -> str:
    """Requirements as one line, without the passwords of URLs."""
    return without_secrets(" ".join(requirements))


def parse(text: str, option: str) -> tuple[str, ...]:
    """The requirements in a user's text.

    Raises:
        UserError: none, or one that pip would take for an option.
    """
    try:
        found = tuple(shlex.split(text))
    except ValueError as error:
        raise UserError(
            f"{option} {text!r} has an open quote", f"Such as {option} 'peft==0.20.0'."
        ) from error
    wrong = [word for word in found if word.startswith("-")]
    if not found or wrong:
        what = f"holds the option {wrong[0]!r}" if wrong else "names nothing"
        raise UserError(
            f"{option} {text!r} {what}",
            f"Give what pip installs: {option} 'peft==0.20.0', a folder, or git+https://...",
        )
    return found


def prepare(
    suite: str, old: tuple[str, ...], new: tuple[str, ...], results: Path, say: Say
) -> tuple[Version, Version]:
    """Make both environments, or take the ones that are there.

    Raises:
        UserError: unknown suite, or pip can't install a version.
    """
    load_suite(suite)
    made = []
    for requirements in (old, new):
        python = _environment(requirements, say)
        folder = results / "versions" / _slug(requirements)
        made.append(Version(requirements, python, folder))
    return made[0], made[1]


def _slug(requirements: Sequence[str]) -> str:
    """A folder's name: readable, and another for other requirements."""
    text = " ".join(requirements)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    name = re.sub(r"[^A-Za-z0-9.]+", "-", without_secrets(text)).strip("-.")[:40]
    return f"{name}-{digest}"


def _environment(requirements: Sequence[str], say: Say) -> Path:
    """The interpreter of an environment with some requirements on top of this one."""
    base = sysconfig.get_paths()["purelib"]
    below = sorted(f"{d.name} {d.version}" for d in metadata.distributions())
    key = hashlib.sha256(repr((base, sys.version, below)).encode()).hexdigest()[:8]
    folder = default_cache() / "environments" / f"{_slug(requirements)}-{key}"
    python = folder / "bin" / "python"
    ready = folder / "peftmark.ready"
    if ready.is_file() and is_pinned(requirements):
        return python
    say(f"Making an environment with {shown(requirements)} ...")
    shutil.rmtree(folder, ignore_errors=True)
    _call([sys.executable, "-m", "venv", str(folder)], "make an environment")
    own = Path(_call([str(python), "-c", ASK_FOLDER], "ask an environment for its folder").strip())
    # `addsitedir`, since a plain path would leave out what is installed there as editable.
    (own / BASE).write_text(f"import site; site.addsitedir({base!r})\n", encoding="utf-8")
    _pip(python, folder, requirements, f"install {shown(requirements)}")
    # pip keeps the code of an equal version that it sees in the environment below.
    _pip(python, folder, ["--force-reinstall", "--no-deps", *requirements], "install it again")
    ready.touch()
    return python


def is_pinned(requirements: Sequence[str]) -> bool:
    """Whether each names one version: a folder or a repository may hold other code every time."""
    return all(re.fullmatch(r"[\w.\-\[\]]+==[\w.!+]+", word) for word in requirements)


def _pip(python: Path, folder: Path, words: Sequence[str], what: str) -> None:
    """Install into an environment; what pip begins lies in the environment's folder, which is made
    anew where a run was killed."""
    scratch = folder / "fetching"
    scratch.mkdir(exist_ok=True)
    # From this folder: a requirement may be a path.
    flags = ["--disable-pip-version-check", "install", "--quiet"]
    done = run_module(
        "pip",
        [*flags, *words],
        python=str(python),
        environment={"TMPDIR": str(scratch)},
    )
    shutil.rmtree(scratch, ignore_errors=True)
    if done.returncode:
        raise _failed(what, done.stderr or done.stdout)


def _failed(what: str, said: str) -> UserError:
    last = " ".join(said.strip().splitlines()[-3:])[:400]
    return UserError(f"can't {what}: {last}", "Check the requirement; nothing was run.")


def _call(words: Sequence[str], what: str) -> str:
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout
    except subprocess.CalledProcessError as error:
        raise _failed(what, error.stderr or error.stdout) from error
    except OSError as error:
        raise UserError(
            f"can't {what}: {error.strerror}", "Check the disk and the rights."
        ) from error


def turns(old: Version, new: Version, rounds: int) -> Iterator[tuple[int, Version]]:
    """(round, side), the first of a round changing so that a drift hits both alike."""
    for number in range(rounds):
        for side in (old, new) if number % 2 == 0 else (new, old):
            yield number, side


def run_side(
    side: Version, suite: str, profile: str | None, again: bool, more: Sequence[str]
) -> None:
    """Run the suite with one version, its progress going to this terminal.

    Raises:
        UserError: the run could not be made, other than with failed jobs, which are rows.
    """
    words = [
        str(side.python),
        "-P",
        "-m",
        "peftmark",
        "run",
        suite,
        "--no-report",
        "--keep",
        "none",
        "--results",
        str(side.results),
        *more,
    ]
    words += ["--profile", profile] if profile else []
    words += ["--again"] if again else []
    code = subprocess.run(words, env=_env(), check=False).returncode
    if code in (Exit.INTERRUPTED, Exit.TERMINATED, -2, -15):
        raise KeyboardInterrupt
    if code not in (Exit.OK, Exit.INCOMPLETE, Exit.NOT_REPEATABLE):
        raise UserError(
            f"the run with {side.shown} ended with code {code}",
            "Its message stands above; finished jobs are kept.",
        )


def _env() -> dict[str, str]:
    """This process's environment without what would put other packages before the version's."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
