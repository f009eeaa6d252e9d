"""What packing left out of a data set, and what it took that is unusual."""
from dataclasses import dataclass, field

NAMES_KEPT = 10


@dataclass
class PackingReport:
    """Collected while a data set is read and written; kept in the database's ``meta`` record.

    Attributes:
        skipped (list[dict]): ``id``, ``file_name`` and ``reason`` of every image left out.
        notices (dict[str, dict]): By kind of finding: its ``count`` and the ``first`` names.
    """
    skipped: list[dict] = field(default_factory=list)
    notices: dict[str, dict] = field(default_factory=dict)

    def skip(self, image: dict, reason: str) -> None:
        """Leave an image out; ``image`` is its entry in the annotation file."""
        self.skipped.append(
            dict(id=image['id'], file_name=image['file_name'], reason=reason))

    def notice(self, kind: str, name: str) -> None:
        """Count a finding that is no fault."""
        found = self.notices.setdefault(kind, dict(count=0, first=[]))
        found['count'] += 1
        if len(found['first']) < NAMES_KEPT:
            found['first'].append(name)

    def content(self) -> dict:
        """JSON content, in an order that does not depend on the order of finding."""
        return dict(skipped=sorted(self.skipped, key=lambda image: image['id']),
                    notices=dict(sorted(self.notices.items())))


def report_lines(meta: dict) -> list[str]:
    """The report in a ``meta`` record, in lines for people: one for each kind and skipped image."""
    lines = []
    for kind, found in meta['report']['notices'].items():
        lines.append(f"note: {kind}: {first_names(found['first'], found['count'])}")
    for image in meta['report']['skipped']:
        lines.append(f"skipped image {image['id']}: {image['file_name']} {image['reason']}")
    return lines


def first_names(names, count: int | None = None) -> str:
    """The first names of a list, and how many more there are."""
    names = list(names)
    count = len(names) if count is None else count
    shown = ', '.join(map(str, names[:NAMES_KEPT]))
    return shown + (f' and {count - NAMES_KEPT} more' if count > NAMES_KEPT else '')
