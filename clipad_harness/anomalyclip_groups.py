"""Which ablations the AnomalyCLIP paper prints, where, and what it reports as better."""

from __future__ import annotations

from clipad_harness.ablation_groups import Group

GROUPS: dict[str, Group] = {}
