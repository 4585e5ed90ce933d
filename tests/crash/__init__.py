"""Killed at every file-system call, and the power cut at every one: what was committed is there, bit for bit.

calls       every call of a process that changes something beneath a directory: numbered, recorded, a place to die
lives       a life: a forked process that ends well, badly, or by SIGKILL
disks       a file system that forgets: which states a power cut may leave of recorded calls
training    a small training with real tensors and random numbers, over the real saving machinery
operations  what a run goes through: saves, resumes, prunes, repairs, pins, requests
promises    what must be true after any crash, and after the resume that follows
trials      one operation, killed or cut off everywhere
cycles      one run that dies again and again, at random places of random operations
"""
