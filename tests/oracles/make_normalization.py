"""Writes src/Text/Tokenizers/normalization.txt from Python's Unicode database.

.NET leaves text as it is in invariant globalization, so the forms need their own table.
A line: code point; combining class; mapping. A mapping begins with '=' when the pair
composes back, '~' when it is canonical only one way, '<' when it is a compatibility one.
"""
import pathlib
import sys
import unicodedata as u

out = []
for c in range(0x110000):
    if 0xAC00 <= c <= 0xD7A3 or 0xD800 <= c <= 0xDFFF:
        continue
    ch, ccc, d = chr(c), u.combining(chr(c)), u.decomposition(chr(c))
    if not ccc and not d:
        continue
    if d.startswith("<"):
        d = "<" + d.split("> ")[1]
    elif d:
        d = ("=" if u.normalize("NFC", ch) == ch and " " in d else "~") + d
    out.append(f"{c:X};{ccc or ''};{d}")
head = f"# Unicode {u.unidata_version}; made by tests/oracles/make_normalization.py\n"
path = pathlib.Path(sys.argv[0]).parents[2] / "src/Text/Tokenizers/normalization.txt"
path.write_text(head + "\n".join(out) + "\n", encoding="utf-8")
