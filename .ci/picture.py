"""Convert a terminal's content to SVG; the picture in README was made with this.

tmux capture-pane -ep | python .ci/picture.py 'rangefetch -d data URL...' docs/live.svg
"""

import io
import sys

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

# rich's own format loads a font from the web and draws a window's buttons.
_FORMAT = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {terminal_height}" role="img">
<title>rangefetch fetches three files</title>
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
<rect width="{width}" height="{terminal_height}" rx="8" fill="#272822"/>
<g transform="translate(12, 10)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def main() -> None:
    """Read the captured terminal and write the picture."""
    command, path = sys.argv[1:]
    console = Console(record=True, width=104, file=io.StringIO(), force_terminal=True, color_system="256")
    console.print(Text.assemble(("$ ", "dim"), command))
    for line in sys.stdin.read().rstrip().splitlines():
        console.print(Text.from_ansi(line))
    console.print()
    console.save_svg(path, title="", theme=MONOKAI, code_format=_FORMAT, unique_id="live")


main()
