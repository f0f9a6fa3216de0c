"""Makes ``names.json.xz``, the names and facts of CLDR that the atlas is built from.

Run ``python -m hybridbatch.data.atlas.make_names`` with the version of `babel` named in
`cldr.SOURCE`. Other versions of babel hold another CLDR and give another atlas. So the package
ships the names and does not need babel.
"""

import json
import lzma
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hybridbatch.data.atlas.cldr import FILE

OUT = Path(__file__).with_name(FILE)


def collect() -> dict[str, Any]:
    """All content of babel that the atlas reads, as JSON types."""
    import babel
    from babel.core import get_cldr_version, get_global

    tables = {
        name: get_global(f"territory_{name}") for name in ("currencies", "languages", "zones")
    }
    zones = sorted({zone for of in tables["zones"].values() for zone in of})
    tender = {}
    for code, entries in tables["currencies"].items():
        tender[code] = [name for name, _, end, legal in entries if legal and end is None]
    speakers = {}
    for code, rows in tables["languages"].items():
        speakers[code] = {name: row["population_percent"] for name, row in rows.items()}
    return {
        "version": f"CLDR {get_cldr_version()}, babel {babel.__version__}",
        "tender": tender,
        "speakers": speakers,
        "zones": tables["zones"],
        "locales": _locales(
            zones, spoken={name.split("_")[0] for of in speakers.values() for name in of}
        ),
    }


def _locales(zones: list[str], spoken: set[str]) -> dict[str, dict[str, Any]]:
    """The names of the languages of CLDR, and of each script that they are written in.

    Only locales that name at least half of the territories are kept, because the atlas takes no
    others.
    """
    from babel.core import get_global
    from babel.localedata import load, locale_identifiers

    found = {}
    for locale in sorted(locale_identifiers()):
        script = locale.partition("_")[2]
        if script and (len(script) != 4 or "_" in script):
            continue
        data = load(locale, merge_inherited=False)
        named = data.get("territories") or {}
        if 2 * sum(len(code) == 2 for code in named) < len(get_global("territory_zones")):
            continue
        own = data.get("time_zones", {})
        found[locale] = {
            "territories": _plain(data["territories"]),
            "currencies": _plain(data.get("currency_names", {})),
            "languages": _plain(
                {
                    code: name
                    for code, name in data.get("languages", {}).items()
                    if code in spoken
                }
            ),
            "cities": {
                zone: own[zone]["city"] for zone in zones if "city" in own.get(zone, ())
            },
        }
    return found


def _plain(names: Mapping[str, str]) -> dict[str, str]:
    return {str(code): str(name) for code, name in names.items()}


def packed(content: Mapping[str, Any]) -> bytes:
    """The bytes of the file; equal content gives equal bytes."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME)


if __name__ == "__main__":
    OUT.write_bytes(packed(collect()))
    sys.stdout.write(f"{OUT}: {OUT.stat().st_size:,} bytes\n")
