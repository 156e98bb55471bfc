"""File reports of the European Nucleotide Archive: one run per row, with several files in a column, joined by ``;``.

``fastq_ftp``, ``fastq_md5`` and ``fastq_bytes`` belong together; likewise the columns of ``submitted``, ``sra`` and
``bam``. The addresses have no scheme; the archive serves them over FTP and HTTP(S).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rangefetch.manifests.item import Row, digest_of

__all__ = ["COLUMNS", "choose", "rows"]

_KINDS = ("fastq", "submitted", "sra", "bam")
COLUMNS = tuple(f"{kind}_ftp" for kind in _KINDS)


def choose(names: Sequence[str], url_column: str) -> str:
    """The kind of files to fetch, preferably ``fastq``; "" if the columns are not those of such a report."""
    if url_column:
        return url_column.removesuffix("_ftp") if url_column in COLUMNS else ""
    return next((kind for kind in _KINDS if f"{kind}_ftp" in names), "")


def rows(kind: str, line: int, columns: Mapping[str, str]) -> Iterator[Row]:
    """Yield the files of a run. Raises ``ValueError``."""
    urls = _split(columns.get(f"{kind}_ftp", ""))
    if not urls:
        raise ValueError(f"there are no files in the column {kind}_ftp")
    checksums = _beside(columns, f"{kind}_md5", len(urls))
    sizes = _beside(columns, f"{kind}_bytes", len(urls))
    for url, checksum, size in zip(urls, checksums, sizes, strict=True):
        address = url if "://" in url else f"https://{url}"
        yield Row(line, address, checksum=digest_of(checksum, "md5"), size=size, columns=columns)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.strip().strip(";").split(";")] if text.strip(" ;") else []


def _beside(columns: Mapping[str, str], name: str, count: int) -> list[str]:
    """One value per URL; empty values if the column is missing or empty. Raises ``ValueError``."""
    values = _split(columns.get(name, ""))
    if values and len(values) != count:
        raise ValueError(f"{count} files, but {len(values)} values in the column {name}")
    return values or [""] * count
