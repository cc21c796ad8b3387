"""Ranking metrics and AUPRO: what scores and maps are measured by."""
