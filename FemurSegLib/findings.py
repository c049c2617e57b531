"""Findings: what the surgeon should know about a result that is not an error."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """`code` is for programs, `message` is one sentence for people, `side` is a femur, None for both."""

    code: str
    message: str
    side: str | None = None
