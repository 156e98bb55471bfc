"""A CycloneDX document that lists the third-party code in a wheel, for ``.dist-info/sboms/`` (PEP 770)."""

from __future__ import annotations

import datetime
import uuid
from importlib import metadata

from cyclonedx.factory.license import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

# Code that becomes part of a compiled extension, and how. libcurl is not included: it is loaded at run time, from
# pycurl's wheel, which has its own list, or from the system.
_COMPILED_IN = {
    "Cython": ("Apache-2.0", "Its runtime functions are in the C code that it generates."),
    "ziglang": ("MIT", "The compiler. Functions of its compiler-rt are linked in where a processor needs them."),
}


def document(version: str, wheel: str, compiled: bool, epoch_s: int) -> str:
    """The document for a wheel, as JSON. It depends only on the arguments and on the installed tools.

    Raises ``ValueError`` if it does not conform to CycloneDX 1.6.
    """
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"pkg:pypi/rangefetch@{version}?file_name={wheel}"))
    bom.metadata.timestamp = datetime.datetime.fromtimestamp(epoch_s, datetime.UTC)
    bom.metadata.tools.components.add(_component("cyclonedx-python-lib", "Apache-2.0"))
    bom.metadata.component = ours = Component(
        name="rangefetch",
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref="rangefetch",
        licenses=[LicenseFactory().make_from_string("MIT")],
        purl=PackageURL("pypi", None, "rangefetch", version, {"file_name": wheel}),
    )
    parts = [_component(name, *about) for name, about in _COMPILED_IN.items()] if compiled else []
    for part in parts:
        bom.components.add(part)
    bom.register_dependency(ours, parts)
    text: str = JsonV1Dot6(bom).output_as_string(indent=2)
    if wrong := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ValueError(f"not a CycloneDX document: {wrong}")
    return text + "\n"


def _component(name: str, license_id: str, description: str | None = None) -> Component:
    """A component, with its installed version."""
    version = metadata.version(name)
    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=name,
        licenses=[LicenseFactory().make_from_string(license_id)],
        purl=PackageURL("pypi", None, name.lower(), version),
        description=description,
    )
