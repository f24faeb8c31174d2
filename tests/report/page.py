"""A strict reader of the report: what a browser would load, and what a person would read."""

import re
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "img", "br", "wbr"}


class Page(HTMLParser):
    """Parses the page; complains about tags that do not match."""

    def __init__(self, path: Path):
        super().__init__(convert_charrefs=True)
        self.source = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(self.source)
        self.close()
        assert self.open == [], "tags left open"

    def handle_starttag(self, tag, attributes):
        assert len({name for name, _ in attributes}) == len(attributes), f"twice in {tag}"
        self.tags.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        """What is read, white space as one blank."""
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def having(self, tag: str) -> list[dict[str, str]]:
        """Attributes of all tags of that name."""
        return [attributes for name, attributes in self.tags if name == tag]

    def check_self_contained(self) -> None:
        """Nothing is loaded from elsewhere, nothing runs, every reference is met in the page."""
        # Colons and slashes together do not occur in base64.
        assert "://" not in self.source
        assert not re.search(r"@import|url\((?!#)", self.source)
        ids = [attributes["id"] for _, attributes in self.tags if "id" in attributes]
        assert len(set(ids)) == len(ids), "an id occurs twice"
        for tag, attributes in self.tags:
            assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
            for name, value in attributes.items():
                assert not name.startswith("on"), f"{tag} {name}"
                if name in ("src", "srcset"):
                    assert value.startswith("data:image/jpeg;base64,")
                if name in ("href", "xlink:href"):
                    assert value.startswith("#")
                    assert value[1:] in ids
        for name in re.findall(r"url\(#([^)]*)\)", self.source):
            assert name in ids
        policy = [a for a in self.having("meta") if "content-security" in str(a).lower()]
        assert policy[0]["content"].startswith("default-src 'none'")
