"""What saving costs training: ours beside the frameworks' own and other libraries, in one run on one machine.

    make bench
    python -m benchmarks.saving lightning --mb 1000 --blocks 7

Every figure comes from a process of its own. An arm's process trains for some steps, saves every so many of them, and
ends when all is durable; beside each block of arms runs one that saves nothing. What an arm costs is the difference,
for each save. Peers' files are made durable (fsync) as ours are, unless ``--cached`` asks for the other class.
"""
