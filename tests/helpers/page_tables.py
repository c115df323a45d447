"""The tables that a page embeds."""

from __future__ import annotations

import base64
import gzip
import json
import re
from typing import Any


def tables_of(page: str) -> dict[str, Any]:
    """Return the tables of a page: name -> its columns and rows."""
    found = re.search(r'id="page-data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(gzip.decompress(base64.b64decode(json.loads(found[1])["tables"])))
