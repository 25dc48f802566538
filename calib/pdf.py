"""One page of black rectangles and words as a PDF, in millimetres that stay millimetres on paper."""

from __future__ import annotations

from dataclasses import dataclass, field

Rectangle = tuple[float, float, float, float]  # x, y, width, height in mm from the page's upper left corner, y down
POINT_MM = 25.4 / 72  # PDF counts in points


@dataclass
class Page:
    """What stands on it. texts: x, y of the base line, height of the letters, words; all in mm, y down."""

    width: float
    height: float
    rectangles: list[Rectangle] = field(default_factory=list)
    texts: list[tuple[float, float, float, str]] = field(default_factory=list)

    def pdf(self) -> bytes:
        """The file. Its one path is filled at once, so that cells side by side show no seam."""
        marks = ["0 g"]
        for x, y, width, height in self.rectangles:
            marks.append(" ".join(_points(x, self.height - y - height, width, height)) + " re")
        marks.append("f")
        for x, y, size, words in self.texts:
            safe = words.encode("latin-1", "replace").decode("latin-1")
            safe = safe.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
            place = _points(x, self.height - y, size)
            marks.append(f"BT /F1 {place[2]} Tf {place[0]} {place[1]} Td ({safe}) Tj ET")
        content = "\n".join(marks).encode("latin-1")
        box = " ".join(("0", "0", *_points(self.width, self.height)))
        objects = [
            # A reader that follows this offers no "fit to page".
            b"<< /Type /Catalog /Pages 2 0 R /ViewerPreferences << /PrintScaling /None >> >>",
            b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            f"<< /Type /Page /Parent 2 0 R /MediaBox [{box}] /Contents 4 0 R "
            "/Resources << /Font << /F1 5 0 R >> >> >>".encode(),
            b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
            b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        ]
        return _file(objects)


def _points(*millimetres: float) -> list[str]:
    return [f"{one / POINT_MM:.5f}".rstrip("0").rstrip(".") for one in millimetres]


def _file(objects: list[bytes]) -> bytes:
    """Objects 1, 2, ... with the table that says where each begins."""
    content, places = b"%PDF-1.4\n", []
    for number, one in enumerate(objects, 1):
        places.append(len(content))
        content += b"%d 0 obj\n%s\nendobj\n" % (number, one)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(content))
    return content + b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1) + table + trailer
