"""The place in the data: one torch `DataLoader` (or any iterable), how far training got in it, and back there.

Framework-free: an adapter puts a `Source` where its framework would iterate the loader.

``source``   one loader: hands out its batches, knows its place, returns there by index where it can, else by loading
``splices``  the random states between two draws of a source, where something else drew in between
``workers``  random states inside worker processes: sent back with each batch, put back in new workers
``memory``   what objects remember: attributes that changed, and whether a data set is one that remembers at all
``private``  every private attribute of torch that is touched, with the reason and the version it was read from
"""
