"""Definitions as the tools that people use write them, and one for each part of libvirt's domain schema.

`definitions/` has them, written for this test. `judge.py` runs the agents' own checks over each, on two hosts that
`hosts.py` describes. `arrival.py` compares what would arrive with what left. `corpus_page.py` writes
docs/reference/corpus.md.
"""
