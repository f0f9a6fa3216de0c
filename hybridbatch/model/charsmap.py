"""SentencePiece's normalisation table (nmt_nfkc), rebuilt from single characters, in the form
`tokenizers` reads.
"""

import itertools
import struct
import unicodedata
from collections.abc import Mapping
from typing import Any

import numpy as np

# bytes: `tokenizers` looks a grapheme up as a whole only while it is shorter than six
LONGEST_KEY = 5
# how far back the trie builder looks for a gap: more packs tighter, slower
SEARCHED_SLOTS = 16 * 256
PLANES = 0x30000  # code points with decompositions lie below


def complete_character_map(single: Mapping[str, str]) -> dict[str, str]:
    """`single` (character -> replacement) with the sequences of base and combining mark that
    compose.

    SentencePiece derives those by taking each character's full decomposition and swapping every
    part for the characters that decompose to that part alone; this does the same from Python's own
    Unicode tables, for keys that can match.
    """
    characters = [
        chr(c)
        for c in range(1, PLANES)
        if unicodedata.category(chr(c)) not in ("Cs", "Cn", "Co")
    ]
    variants: dict[str, list[str]] = {}
    for character in characters:
        whole = unicodedata.normalize("NFKD", character)
        if len(whole) == 1 and (whole == character or character in single):
            variants.setdefault(whole, []).append(character)
    sequences = {}
    for character in characters:
        parts = unicodedata.normalize("NFKD", character)
        target = unicodedata.normalize("NFKC", character)
        composes = len(target) == 1 < len(parts) and (
            character in single or target == character
        )
        if not composes or len(parts.encode()) > LONGEST_KEY:
            continue
        for choice in itertools.product(*(variants[part] for part in parts)):
            key = "".join(choice)
            if len(key.encode()) <= LONGEST_KEY:
                sequences[key] = target
    return sequences | dict(single)


def build_charsmap(character_map: Mapping[str, str]) -> bytes:
    """The binary form of a normalisation table: size and units of a double-array trie, then the
    replacements.

    Layout of a unit as in the Darts-clone library: bits 0-7 label, bit 8 "a key ends below", bits
    10-30 distance to the children (bit 9: in steps of 256); bit 31 marks a value, here the offset
    of a replacement.
    """
    replacements, at = bytearray(), {}
    values = {}
    for key, value in character_map.items():
        if value not in at:
            at[value] = len(replacements)
            replacements += value.encode() + b"\0"
        values[key.encode()] = at[value]
    units = np.array(_double_array(_trie(values)), dtype="<u4").tobytes()
    return struct.pack("<I", len(units)) + units + bytes(replacements)


def _trie(values: Mapping[bytes, int]) -> dict[int, Any]:
    """Nested nodes by byte; label 0 holds the value of a key that ends there."""
    root: dict[int, Any] = {}
    for key, value in values.items():
        node = root
        for byte in key:
            node = node.setdefault(byte, {})
        node[0] = value
    return root


def _double_array(trie: dict[int, Any]) -> list[int]:
    units = [0] * 256
    used = bytearray(b"\1") + bytes(255)
    bases: set[int] = {0}
    queue = [(0, trie)]
    for position, node in queue:  # grows while it is walked: breadth first
        labels = sorted(node)
        slot = max(0, len(units) - SEARCHED_SLOTS)
        while True:
            slot = used.find(0, slot)
            if slot < 0:
                slot = len(units)
                units += [0] * 256
                used += bytes(256)
            base = slot ^ labels[0]
            if base not in bases and not any(used[base ^ label] for label in labels):
                break
            slot += 1
        bases.add(base)
        distance = position ^ base
        units[position] |= distance << 10 if distance < 1 << 21 else (distance << 2) | 1 << 9
        for label in labels:
            used[base ^ label] = 1
            if label:
                units[base ^ label] = label
                queue.append((base ^ label, node[label]))
            else:
                units[position] |= 1 << 8
                units[base] = node[0] | 1 << 31
    return units
