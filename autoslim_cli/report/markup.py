"""Build HTML and SVG as elements: text and attributes are escaped when they are written, whatever they hold."""

import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

NOT_TEXT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no document may hold: control characters, halves of pairs."""


def element(tag: str, *children: "Element | str | None", **attributes: object) -> Element:
    """Return an element; `class_` is written class, and `aria_label` aria-label. What is None is left out."""
    named = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items() if value is not None}
    made = Element(tag, {name: _text(value) for name, value in named.items()})
    last: Element | None = None
    for child in children:
        if isinstance(child, Element):
            made.append(child)
            last = child
        elif child is not None and last is None:
            made.text = (made.text or "") + _text(child)
        elif child is not None and last is not None:
            last.tail = (last.tail or "") + _text(child)
    return made


def html(document: Element) -> str:
    """Write a page."""
    return "<!DOCTYPE html>\n" + ElementTree.tostring(document, encoding="unicode", method="html") + "\n"


def svg_file(drawing: Element, style: str) -> str:
    """Write a drawing as a file of its own, with the style that a page has for it."""
    whole = Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "data-by": "autoslim", **drawing.attrib})
    whole.append(element("style", style))
    whole.extend(drawing)
    return ElementTree.tostring(whole, encoding="unicode") + "\n"


def _text(value: object) -> str:
    """Write a value as text; numbers as short as they can be read."""
    text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return NOT_TEXT.sub("\N{REPLACEMENT CHARACTER}", text)
