"""Damaged: bytes flipped, files cut, longer, gone or swapped. All of it is named, and a resume steps back, bit for bit.

damages  what can happen to the files of a run's newest snapshot, and to `run.json`
trials   a run of some snapshots, damaged in one way after the other; what must be true each time
"""
